;; wordsum: adds up the unsigned decimal integers of `input.txt`.
;;
;; A number is a maximal run of the digits 0-9; every other byte separates. The sum
;; wraps at 2^64. The line `count=<n> sum=<s>` goes to standard output and to
;; `result.txt`, so that whoever holds the input can recompute the result.
;; Exit codes: 0 done, 2 a file cannot be opened, 3 reading or writing fails; the preview 1
;; adapter reports every code but 0 as 1.
;;
;; Memory: 0 iovec, 8 bytes moved, 12 opened descriptor, 16.. texts, 128.. the line,
;; 4096.. the read buffer of 32 KiB.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_read"
    (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))

  (memory (export "memory") 1)
  (data (i32.const 16) "input.txt")
  (data (i32.const 32) "result.txt")
  (data (i32.const 48) "count=")
  (data (i32.const 56) " sum=")

  (global $count (mut i64) (i64.const 0))
  (global $sum (mut i64) (i64.const 0))
  (global $number (mut i64) (i64.const 0))
  (global $in_number (mut i32) (i32.const 0))

  ;; Opens a file of the preopened directory (descriptor 3).
  (func $open (param $name i32) (param $len i32) (param $oflags i32) (param $rights i64)
    (result i32)
    (if (call $path_open (i32.const 3) (i32.const 0) (local.get $name) (local.get $len)
          (local.get $oflags) (local.get $rights) (i64.const 0) (i32.const 0) (i32.const 12))
      (then (call $proc_exit (i32.const 2))))
    (i32.load (i32.const 12)))

  (func $write_all (param $fd i32) (param $at i32) (param $len i32)
    (loop $more
      (if (i32.eqz (local.get $len)) (then (return)))
      (i32.store (i32.const 0) (local.get $at))
      (i32.store (i32.const 4) (local.get $len))
      (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
        (then (call $proc_exit (i32.const 3))))
      (local.set $at (i32.add (local.get $at) (i32.load (i32.const 8))))
      (local.set $len (i32.sub (local.get $len) (i32.load (i32.const 8))))
      (br $more)))

  (func $end_number
    (if (global.get $in_number)
      (then
        (global.set $count (i64.add (global.get $count) (i64.const 1)))
        (global.set $sum (i64.add (global.get $sum) (global.get $number)))
        (global.set $number (i64.const 0))
        (global.set $in_number (i32.const 0)))))

  (func $take (param $byte i32)
    (local.set $byte (i32.sub (local.get $byte) (i32.const 48)))
    (if (i32.lt_u (local.get $byte) (i32.const 10))
      (then
        (global.set $in_number (i32.const 1))
        (global.set $number
          (i64.add
            (i64.mul (global.get $number) (i64.const 10))
            (i64.extend_i32_u (local.get $byte)))))
      (else (call $end_number))))

  (func $read_numbers (param $fd i32)
    (local $at i32) (local $end i32)
    (block $done
      (loop $chunk
        (i32.store (i32.const 0) (i32.const 4096))
        (i32.store (i32.const 4) (i32.const 32768))
        (if (call $fd_read (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
          (then (call $proc_exit (i32.const 3))))
        (br_if $done (i32.eqz (i32.load (i32.const 8))))
        (local.set $at (i32.const 4096))
        (local.set $end (i32.add (i32.const 4096) (i32.load (i32.const 8))))
        (loop $byte
          (call $take (i32.load8_u (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br_if $byte (i32.lt_u (local.get $at) (local.get $end))))
        (br $chunk)))
    (call $end_number))

  (func $append_text (param $at i32) (param $from i32) (param $len i32) (result i32)
    (memory.copy (local.get $at) (local.get $from) (local.get $len))
    (i32.add (local.get $at) (local.get $len)))

  (func $append_number (param $at i32) (param $value i64) (result i32)
    (local $end i32) (local $rest i64)
    (local.set $end (local.get $at))
    (local.set $rest (local.get $value))
    (loop $width
      (local.set $end (i32.add (local.get $end) (i32.const 1)))
      (local.set $rest (i64.div_u (local.get $rest) (i64.const 10)))
      (br_if $width (i64.ne (local.get $rest) (i64.const 0))))
    (local.set $at (local.get $end))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.wrap_i64 (i64.rem_u (local.get $value) (i64.const 10)))))
      (local.set $value (i64.div_u (local.get $value) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $value) (i64.const 0))))
    (local.get $end))

  (func (export "_start")
    (local $fd i32) (local $end i32)
    (local.set $fd (call $open (i32.const 16) (i32.const 9) (i32.const 0) (i64.const 2)))
    (call $read_numbers (local.get $fd))
    (drop (call $fd_close (local.get $fd)))

    (local.set $end (call $append_text (i32.const 128) (i32.const 48) (i32.const 6)))
    (local.set $end (call $append_number (local.get $end) (global.get $count)))
    (local.set $end (call $append_text (local.get $end) (i32.const 56) (i32.const 5)))
    (local.set $end (call $append_number (local.get $end) (global.get $sum)))
    (i32.store8 (local.get $end) (i32.const 10))
    (local.set $end (i32.sub (local.get $end) (i32.const 127)))

    (call $write_all (i32.const 1) (i32.const 128) (local.get $end))
    ;; create | truncate, right to write
    (local.set $fd (call $open (i32.const 32) (i32.const 10) (i32.const 9) (i64.const 64)))
    (call $write_all (local.get $fd) (i32.const 128) (local.get $end))
    (drop (call $fd_close (local.get $fd)))))
