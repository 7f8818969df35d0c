;; Ends by itself with exit code 3.
;;
;; A component, not a core module: the preview 1 adapter turns every code but 0 into 1.
(component
  (import "wasi:cli/exit@0.2.12"
    (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
  (core func $exit_with_code (canon lower (func $exit "exit-with-code")))
  (core module $main
    (import "exit" "with-code" (func $exit_with_code (param i32)))
    (func (export "run") (result i32)
      (call $exit_with_code (i32.const 3))
      (unreachable)))
  (core instance $main
    (instantiate $main
      (with "exit" (instance (export "with-code" (func $exit_with_code))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.12" (instance $command)))
