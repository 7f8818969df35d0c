;; Writes files of at most 64 KiB, one after the other, until writing fails.
;;
;; Memory: 0 iovec, 8 bytes moved, 12 descriptor, 16 the name, whose last byte counts up;
;; 4096.. the 32 KiB written twice to each file.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_close" (func $fd_close (param i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "fill-AA")

  (func $chunk (param $fd i32)
    (i32.store (i32.const 0) (i32.const 4096))
    (i32.store (i32.const 4) (i32.const 32768))
    (if (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))
      (then (call $proc_exit (i32.const 4)))))

  (func $bump (param $at i32)
    (i32.store8 (local.get $at) (i32.add (i32.load8_u (local.get $at)) (i32.const 1)))
    (if (i32.gt_u (i32.load8_u (local.get $at)) (i32.const 90))
      (then
        (i32.store8 (local.get $at) (i32.const 65))
        (if (i32.eq (local.get $at) (i32.const 22))
          (then (call $bump (i32.const 21)))))))

  (func (export "_start")
    (loop $next
      (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 7)
            (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 12))
        (then (call $proc_exit (i32.const 4))))
      (call $chunk (i32.load (i32.const 12)))
      (call $chunk (i32.load (i32.const 12)))
      (drop (call $fd_close (i32.load (i32.const 12))))
      (call $bump (i32.const 22))
      (br $next))))
