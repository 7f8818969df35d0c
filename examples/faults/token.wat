;; Exits with 0 if its environment is the one that is expected, and prints nothing of it: what is
;; sealed is looked for on the disk.
(module
  (import "wasi_snapshot_preview1" "environ_sizes_get"
    (func $environ_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "environ_get"
    (func $environ_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  ;; TOKEN=correct-horse and a zero, each byte with its lowest bit turned, so that a search for the
  ;; value does not find this program.
  (data (i32.const 1024) "\55\4e\4a\44\4f\3c\62\6e\73\73\64\62\75\2c\69\6e\73\72\64\01")
  (func (export "_start") (local $at i32)
    (drop (call $environ_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.ne (i32.load (i32.const 4)) (i32.const 20))
      (then (call $proc_exit (i32.const 1))))
    (drop (call $environ_get (i32.const 8) (i32.const 512)))
    (loop $next
      (if (i32.ne
            (i32.load8_u (i32.add (i32.const 512) (local.get $at)))
            (i32.xor (i32.const 1) (i32.load8_u (i32.add (i32.const 1024) (local.get $at)))))
        (then (call $proc_exit (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $at) (i32.const 20))))
    (call $proc_exit (i32.const 0))))
