//! Capacity that nobody has numbered: of each class as many units as the host has room for.
//!
//! Classes share one host. What is sold of one, or on offer, is not there for the others; what is
//! not is there for all of them, until one of them offers it.

use std::collections::BTreeMap;

use super::{CapacityRecord, Register};
use crate::engine::kernel::Context;
use crate::limits::UNITS_MAX;
use crate::params::ClassDef;

/// What a host has for leases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Room {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub gpus: u64,
}

impl Room {
    /// What so many units of a class need.
    #[must_use]
    pub fn of(class: &ClassDef, units: u32) -> Self {
        let times = |floor: u32| u64::from(floor).saturating_mul(units.into());
        Self {
            cpu_milli: times(class.cpu_milli),
            memory_mib: times(class.memory_mib),
            disk_mib: times(class.disk_mib),
            gpus: times(class.gpus.into()),
        }
    }

    /// What is left when some of it is taken.
    #[must_use]
    pub fn without(self, taken: Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(taken.cpu_milli),
            memory_mib: self.memory_mib.saturating_sub(taken.memory_mib),
            disk_mib: self.disk_mib.saturating_sub(taken.disk_mib),
            gpus: self.gpus.saturating_sub(taken.gpus),
        }
    }

    /// How many units of a class find room.
    #[must_use]
    pub fn units(self, class: &ClassDef) -> u32 {
        let one = Self::of(class, 1);
        let fits = [
            (self.cpu_milli, one.cpu_milli),
            (self.memory_mib, one.memory_mib),
            (self.disk_mib, one.disk_mib),
            (self.gpus, one.gpus),
        ];
        let fits = fits.iter().filter_map(|(have, need)| have.checked_div(*need));
        u32::try_from(fits.min().unwrap_or(0)).unwrap_or(UNITS_MAX).min(UNITS_MAX)
    }
}

impl Register {
    /// Whether classes share the room of this host.
    pub fn is_shared(&self) -> bool {
        self.room.is_some()
    }

    /// Numbers the units of every class anew, if the host shares its room among them. `offered` has
    /// the end of the unit numbers that orders offer, by class.
    pub fn share_room(&mut self, ctx: &mut Context<'_>, offered: &BTreeMap<u16, u32>) {
        let Some(room) = self.room else { return };
        let taken = |class: u16| {
            let offered = offered.get(&class).copied().unwrap_or(0);
            self.ledger.highest(class).max(offered)
        };
        let classes = &ctx.params.classes;
        let units_of = |class: &ClassDef| {
            let others = classes.iter().map(|other| &other.floors).filter(|o| o.id != class.id);
            let left = others.fold(room, |left, o| left.without(Room::of(o, taken(o.id))));
            left.units(class).max(self.ledger.highest(class.id))
        };
        let all: Vec<(u16, u32)> =
            classes.iter().map(|class| (class.floors.id, units_of(&class.floors))).collect();
        for (class, units) in all {
            if units != self.ledger.capacity(class)
                && self.ledger.set_capacity(class, units).is_ok()
            {
                ctx.out.store(&class.to_be_bytes(), &CapacityRecord { units });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::params::Isolation;
    use crate::wire::VERSION;

    #[test]
    fn as_many_units_find_room_as_the_scarcest_allows() {
        let class = ClassDef {
            v: VERSION,
            id: 1,
            cpu_milli: 1_000,
            memory_mib: 256,
            disk_mib: 64,
            gpus: 1,
            gpu_memory_mib: 0,
            features: 0,
            isolation: Isolation::Wasm,
        };
        let rich = Room { cpu_milli: 9_999, memory_mib: 2_560, disk_mib: 640, gpus: 10 };
        let without_gpus = ClassDef { gpus: 0, ..class.clone() };
        let table = [
            (rich, &class, 9),
            (Room { memory_mib: 767, ..rich }, &class, 2),
            (Room { disk_mib: 64, ..rich }, &class, 1),
            (Room { gpus: 0, ..rich }, &class, 0),
            (Room { gpus: 0, ..rich }, &without_gpus, 9),
            (Room { cpu_milli: u64::MAX, ..rich }, &without_gpus, 10),
            (Room::default(), &without_gpus, 0),
        ];
        for (room, class, units) in table {
            assert_eq!(room.units(class), units, "{room:?}");
        }
        let left = rich.without(Room::of(&class, 3));
        assert_eq!(left, Room { cpu_milli: 6_999, memory_mib: 1_792, disk_mib: 448, gpus: 7 });
        assert_eq!(left.without(Room::of(&class, 100)), Room::default());
    }
}
