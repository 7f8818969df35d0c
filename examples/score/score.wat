;; score: how long a fixed number of steps takes, and a copy of fixed size: the shortest of as
;; many tries as fit into a second each.
;;
;; Prints 16 bytes: ns of 4,194,304 steps of one xorshift generator, and ns of a copy of 32 MiB,
;; both with the lowest byte first. `src/executor/score.rs` does the same, and makes rates of it.
;;
;; Memory: 0 iovec, 8 bytes moved, 16 time, 32 the two results, 48 what the steps came to; from the
;; second page on what is copied, and its copy.
(module
  (import "wasi_snapshot_preview1" "clock_time_get"
    (func $clock_time_get (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1025)

  ;; Of the monotonic clock, ns.
  (func $now (result i64)
    (drop (call $clock_time_get (i32.const 1) (i64.const 1) (i32.const 16)))
    (i64.load (i32.const 16)))

  (func $steps
    (local $x i64) (local $left i32)
    (local.set $x (i64.const 0x2545f4914f6cdd1d))
    (local.set $left (i32.const 4194304))
    (loop $more
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 13))))
      (local.set $x (i64.xor (local.get $x) (i64.shr_u (local.get $x) (i64.const 7))))
      (local.set $x (i64.xor (local.get $x) (i64.shl (local.get $x) (i64.const 17))))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))
    (i64.store (i32.const 48) (local.get $x)))

  (func $copy
    (memory.copy (i32.const 33619968) (i32.const 65536) (i32.const 33554432)))

  ;; Tries for a second, and keeps the shortest time at an address.
  (func $measure (param $is_copy i32) (param $at i32)
    (local $begun i64) (local $before i64) (local $took i64)
    (local.set $begun (call $now))
    (i64.store (local.get $at) (i64.const -1))
    (loop $more
      (local.set $before (call $now))
      (if (local.get $is_copy) (then (call $copy)) (else (call $steps)))
      (local.set $took (i64.sub (call $now) (local.get $before)))
      (if (i64.lt_u (local.get $took) (i64.load (local.get $at)))
        (then (i64.store (local.get $at) (local.get $took))))
      (br_if $more
        (i64.lt_u (i64.sub (call $now) (local.get $begun)) (i64.const 1000000000)))))

  (func (export "_start")
    (memory.fill (i32.const 65536) (i32.const 7) (i32.const 33554432))
    (call $measure (i32.const 0) (i32.const 32))
    (call $measure (i32.const 1) (i32.const 40))
    (i32.store (i32.const 0) (i32.const 32))
    (i32.store (i32.const 4) (i32.const 16))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))
