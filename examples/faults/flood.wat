;; Appends to one file until writing fails.
;;
;; Memory: 0 iovec, 8 bytes moved, 12 descriptor, 16 the name, 4096.. 32 KiB to write.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "flood")
  (func (export "_start")
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 5)
          (i32.const 9) (i64.const 64) (i64.const 0) (i32.const 0) (i32.const 12))
      (then (unreachable)))
    (loop $more
      (i32.store (i32.const 0) (i32.const 4096))
      (i32.store (i32.const 4) (i32.const 32768))
      (br_if $more
        (i32.eqz (call $fd_write (i32.load (i32.const 12)) (i32.const 0) (i32.const 1)
          (i32.const 8)))))))
