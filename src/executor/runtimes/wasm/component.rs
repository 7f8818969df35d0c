//! Runs a WASI 0.2 component: one working directory, capped output, limited memory, no
//! network, no inherited environment.

use std::sync::Arc;

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, ResourceLimiter, Store, Trap, UpdateDeadline};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxView, WasiView};

use super::meter::Meter;
use super::output::Output;
use crate::executor::runtimes::Job;
use crate::executor::state::{Outcome, printable};

/// Core instances, tables and memories each: a component has a handful.
const MAX_PARTS: usize = 64;
/// Host objects that a workload may hold open: files, streams, timers.
const MAX_HANDLES: usize = 512;
/// A table element is a pointer, and a lazily filled one two.
const TABLE_ELEMENT_BYTES: usize = 16;

/// An engine whose code checks the epoch at each loop and call.
pub(super) fn engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// A compiled component, linked to WASI.
pub(super) struct Program {
    engine: Engine,
    command: CommandPre<Host>,
}

impl Program {
    /// Compiles. Its time and memory grow with the component, whose size is bounded.
    pub(super) fn compile(engine: &Engine, component: &[u8]) -> wasmtime::Result<Self> {
        let component = Component::from_binary(engine, component)?;
        let mut linker = Linker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let command = CommandPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self { engine: engine.clone(), command })
    }

    /// Runs to the end. Returns control to the caller's executor at each epoch, so that
    /// dropping the future ends a busy workload as well as a sleeping one.
    pub(super) async fn run(&self, host: Host) -> Outcome {
        let meter = Arc::clone(&host.memory.meter);
        let counted = Arc::clone(&meter);
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |_| {
            counted.sample_cpu();
            Ok(UpdateDeadline::Yield(1))
        });
        let command = match self.command.instantiate_async(&mut store).await {
            Ok(command) => command,
            Err(error) => return not_instantiated(&error, &meter),
        };
        let result = command.wasi_cli_run().call_run(&mut store).await;
        meter.sample_cpu();
        outcome_of(result, &meter)
    }
}

fn not_instantiated(error: &wasmtime::Error, meter: &Meter) -> Outcome {
    if meter.was_denied() {
        return Outcome::Memory;
    }
    Outcome::failed(format!("instantiation: {error:#}"))
}

fn outcome_of(result: wasmtime::Result<Result<(), ()>>, meter: &Meter) -> Outcome {
    let error = match result {
        Ok(Ok(())) => return Outcome::Exited { code: 0 },
        Ok(Err(())) => return Outcome::Exited { code: 1 },
        Err(error) => error,
    };
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Outcome::Exited { code: exit.0 };
    }
    if meter.was_denied() {
        return Outcome::Memory;
    }
    // The trap alone: the whole error carries a backtrace with names that the workload chose.
    let reason = error.downcast_ref::<Trap>().map_or_else(|| error.to_string(), Trap::to_string);
    Outcome::Trapped { reason: printable(&reason) }
}

/// What a workload can reach.
pub(super) struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    memory: MemoryLimit,
}

impl Host {
    pub(super) fn new(job: &Job, meter: Arc<Meter>) -> wasmtime::Result<Self> {
        let Job { dir, spec, logs: [stdout, stderr], .. } = job;
        let mut wasi = WasiCtx::builder();
        // The thread serves this workload alone, and its CPU time is what is metered.
        wasi.allow_blocking_current_thread(true);
        wasi.args(&spec.workload.command).envs(&job.env()?);
        wasi.stdout(Output(stdout.clone())).stderr(Output(stderr.clone()));
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        wasi.preopened_dir(dir.work(), ".", FsPerms::ReadWrite)?;
        let max_bytes = usize::try_from(spec.memory_max_bytes).unwrap_or(usize::MAX);
        Ok(Self::with(wasi.build(), max_bytes, meter))
    }

    /// Nothing but a standard output, whose first bytes are kept.
    pub(super) fn printing(
        max_bytes: usize,
        printed_bytes: usize,
        meter: Arc<Meter>,
    ) -> wasmtime::Result<(Self, MemoryOutputPipe)> {
        let printed = MemoryOutputPipe::new(printed_bytes);
        let mut wasi = WasiCtx::builder();
        wasi.allow_blocking_current_thread(true);
        wasi.stdout(printed.clone());
        wasi.allow_tcp(false).allow_udp(false).allow_ip_name_lookup(false);
        Ok((Self::with(wasi.build(), max_bytes, meter), printed))
    }

    fn with(wasi: WasiCtx, max_bytes: usize, meter: Arc<Meter>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let memory = MemoryLimit { max_bytes, used_bytes: 0, last_growth: 0, meter };
        Self { table, wasi, memory }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// All memories and tables of a workload together. A refused growth is the workload's to
/// handle, as a failed allocation is anywhere else.
struct MemoryLimit {
    max_bytes: usize,
    used_bytes: usize,
    last_growth: usize,
    meter: Arc<Meter>,
}

impl MemoryLimit {
    fn grow(&mut self, growth: usize) -> bool {
        let wanted = self.used_bytes.saturating_add(growth);
        self.last_growth = 0;
        if wanted > self.max_bytes {
            self.meter.memory_refused();
            return false;
        }
        self.last_growth = growth;
        self.used_bytes = wanted;
        self.meter.memory_in_use(wanted as u64);
        true
    }

    /// The growth that was allowed last did not come about.
    fn undo(&mut self) {
        self.used_bytes = self.used_bytes.saturating_sub(self.last_growth);
        self.last_growth = 0;
    }
}

impl ResourceLimiter for MemoryLimit {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let elements = desired.saturating_sub(current);
        Ok(self.grow(elements.saturating_mul(TABLE_ELEMENT_BYTES)))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.undo();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_PARTS
    }

    fn tables(&self) -> usize {
        MAX_PARTS
    }

    fn memories(&self) -> usize {
        MAX_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_parts_and_given_back_when_growth_fails() {
        let meter = Arc::new(Meter::default());
        let mut limit = MemoryLimit {
            max_bytes: 100,
            used_bytes: 0,
            last_growth: 0,
            meter: Arc::clone(&meter),
        };
        assert!(limit.memory_growing(0, 60, None).unwrap());
        assert!(limit.table_growing(0, 2, None).unwrap());
        assert!(!limit.memory_growing(60, 69, None).unwrap());
        assert!(limit.memory_growing(60, 68, None).unwrap());
        limit.memory_grow_failed(wasmtime::Error::msg("no")).unwrap();
        assert!(limit.memory_growing(0, 8, None).unwrap());
        assert_eq!((meter.memory_peak_bytes(), meter.memory_denied()), (100, 1));
    }
}
