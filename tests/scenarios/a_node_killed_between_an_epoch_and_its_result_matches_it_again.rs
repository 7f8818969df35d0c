use super::kit::{assert_sound, devnet, pair, reach, rest, trades};
use capex::sim::{Kill, NodeId, World};
use capex_core::engine::kernel::Table;

/// The epoch whose orders are on a disk that has no result of it.
fn unmatched(world: &World, node: NodeId) -> Option<u64> {
    let records = world.nodes[node].disk.records();
    let frozen = records.iter().find(|record| record.table == Table::Frozen.number())?;
    Some(u64::from_be_bytes(frozen.key.as_slice().try_into().unwrap()))
}

#[test]
fn and_its_trade_settles() {
    for node in [0, 1] {
        let mut killed = 0;
        let written = pair(14, 2).nodes[node].disk.writes();
        for write in written + 1..written + 8 {
            let mut world = pair(14, 2);
            world.nodes[node].disk.kill_at(write, Kill::After);
            let epochs_ms = 2 * devnet().epoch_ms();
            if !world.run_until(epochs_ms, |world| world.engine(node).is_none()) {
                break;
            }
            let Some(epoch) = unmatched(&world, node) else { continue };
            killed += 1;
            world.restart(node, 200);
            reach(&mut world, 1, "active");
            assert_eq!(trades(&world, 1)[0].row.epoch, epoch, "node {node}");
            assert_eq!(unmatched(&world, node), None);
            rest(&mut world);
            assert_sound(&world);
        }
        assert!(killed > 0, "node {node} was never killed in between");
    }
}
