;; Tries to leave its directory and to see what it was not given.
;; Exit codes: 0 nothing found, 10 a parent's file opened, 11 an absolute path opened,
;; 12 a second preopened directory, 13 an inherited environment, 14 opened through a
;; symbolic link to the parent (all but 0 are reported as 1 by the adapter). It leaves the link `result.txt` -> `../spec.json`.
(module
  (import "wasi_snapshot_preview1" "path_open"
    (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "path_symlink"
    (func $path_symlink (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_prestat_get"
    (func $fd_prestat_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (data (i32.const 16) "../spec.json")
  (data (i32.const 48) "/etc/passwd")
  (data (i32.const 64) "result.txt")

  ;; 1 when the path can be opened for reading, symbolic links followed.
  (func $opens (param $path i32) (param $len i32) (result i32)
    (i32.eqz
      (call $path_open (i32.const 3) (i32.const 1) (local.get $path) (local.get $len)
        (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 12))))

  (func (export "_start")
    (if (call $opens (i32.const 16) (i32.const 12)) (then (call $proc_exit (i32.const 10))))
    (if (call $opens (i32.const 48) (i32.const 11)) (then (call $proc_exit (i32.const 11))))
    (if (i32.eqz (call $fd_prestat_get (i32.const 4) (i32.const 96)))
      (then (call $proc_exit (i32.const 12))))
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.load (i32.const 0)) (then (call $proc_exit (i32.const 13))))
    (drop (call $path_symlink (i32.const 16) (i32.const 12) (i32.const 3)
      (i32.const 64) (i32.const 10)))
    (if (call $opens (i32.const 64) (i32.const 10)) (then (call $proc_exit (i32.const 14))))))
