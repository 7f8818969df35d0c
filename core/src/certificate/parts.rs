//! Geometry of parts: whether they have every unit and slot of an area once, and what they make
//! together.

use std::collections::BTreeSet;

use super::objects::Area;
use super::ranges;
use crate::limits::{MERGE_PARTS_MAX, SPLIT_PARTS_MAX};
use crate::units::{UnitRange, Units, Window};

/// Why areas are no split of another, or have no union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// Too few or too many, or one without unit or slot.
    Form,
    /// A part lies outside the area.
    Outside,
    /// A unit is in two parts in one slot, or in none.
    Sum,
    /// Parts that are no rectangle together, or one in more than 16 ranges.
    Apart,
}

/// Whether parts have each unit and slot of an area exactly once.
///
/// # Errors
/// [`Misfit`], never `Apart`.
pub(super) fn partition(whole: &Area, parts: &[Area]) -> Result<(), Misfit> {
    let has_form = |part: &Area| part.units.is_canonical() && !part.window.is_empty();
    if !(2..=SPLIT_PARTS_MAX).contains(&parts.len()) || !parts.iter().all(has_form) {
        return Err(Misfit::Form);
    }
    let is_inside =
        |part: &Area| whole.window.covers(part.window) && whole.units.covers(&part.units);
    if !parts.iter().all(is_inside) {
        return Err(Misfit::Outside);
    }
    // Inside, apart and of the same size: nothing is missing.
    let sum: u64 = parts.iter().map(Area::unit_slots).sum();
    if !are_apart(parts) || sum != whole.unit_slots() {
        return Err(Misfit::Sum);
    }
    Ok(())
}

/// The parts of an area of which the first has so many units, the lowest, in a window: all that
/// it takes for what is left, at most three. `None` if the area has not so many units or slots, or
/// nothing would be left.
#[must_use]
pub fn carve(whole: &Area, qty: Option<u32>, window: Option<Window>) -> Option<Vec<Area>> {
    let (count, window) = (whole.units.count(), window.unwrap_or(whole.window));
    let qty = qty.unwrap_or(count);
    if qty == 0 || qty > count || window.is_empty() || !whole.window.covers(window) {
        return None;
    }
    let taken = ranges::lowest(whole.units.ranges(), qty)?;
    let left = ranges::subtract(whole.units.ranges(), &taken);
    let units = Units::new(taken)?;
    let mut parts = vec![Area { units, window }];
    // Nothing is left of the units where all are taken.
    parts.extend(Units::new(left).map(|units| Area { units, window }));
    let (before, after) = ((whole.window.start, window.start), (window.end, whole.window.end));
    for (start, end) in [before, after] {
        let units = whole.units.clone();
        parts.extend(Window::new(start, end).map(|window| Area { units, window }));
    }
    (parts.len() > 1).then_some(parts)
}

/// The rectangle that areas make together: equal units in windows that follow each other, or
/// distinct units in one window.
///
/// # Errors
/// [`Misfit`], never `Outside`.
pub(super) fn union(parts: &[&Area]) -> Result<Area, Misfit> {
    let [first, others @ ..] = parts else { return Err(Misfit::Form) };
    if others.is_empty() || parts.len() > MERGE_PARTS_MAX {
        return Err(Misfit::Form);
    }
    if others.iter().all(|part| part.window == first.window) {
        let units = joined(&ranges::sorted(parts.iter().map(|part| &part.units)))?;
        return Ok(Area { units, window: first.window });
    }
    if others.iter().any(|part| part.units != first.units) {
        return Err(Misfit::Apart);
    }
    let mut windows: Vec<Window> = parts.iter().map(|part| part.window).collect();
    windows.sort();
    for (before, after) in windows.iter().zip(windows.iter().skip(1)) {
        match before.end.cmp(&after.start) {
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Less => return Err(Misfit::Apart),
            std::cmp::Ordering::Greater => return Err(Misfit::Sum),
        }
    }
    let start = windows.first().map_or(0, |window| window.start);
    let end = windows.last().map_or(0, |window| window.end);
    Ok(Area { units: first.units.clone(), window: Window { start, end } })
}

/// The lowest `qty` of some units; `None` if there are fewer.
#[must_use]
pub(crate) fn lowest_units(units: &Units, qty: u32) -> Option<Units> {
    ranges::lowest(units.ranges(), qty).and_then(Units::new)
}

/// Cuts an area into parts that are taken and what is left of it, in as few windows as it takes;
/// what is left of `kept`, which lies inside as the taken parts do, is not mixed with the rest. The
/// taken parts come first. `None` if a split cannot have these parts.
#[must_use]
pub(crate) fn cut(whole: &Area, kept: &Area, taken: &[Area]) -> Option<Vec<Area>> {
    let windows = taken.iter().map(|area| area.window).chain([whole.window, kept.window]);
    let bounds: BTreeSet<u32> = windows.flat_map(|window| [window.start, window.end]).collect();
    let bounds: Vec<u32> = bounds.into_iter().collect();
    let (mut left, mut outside): (Vec<Area>, Vec<Area>) = (Vec::new(), Vec::new());
    for pair in bounds.windows(2) {
        let [start, end] = pair else { continue };
        let window = Window::new(*start, *end)?;
        let in_window = taken.iter().filter(|area| area.window.covers(window));
        let gone = ranges::sorted(in_window.map(|area| &area.units));
        let inside = kept.window.covers(window);
        let (free, rest) = if inside {
            let free = ranges::subtract(kept.units.ranges(), &gone);
            (free, ranges::subtract(whole.units.ranges(), kept.units.ranges()))
        } else {
            (Vec::new(), whole.units.ranges().to_vec())
        };
        append(&mut left, free, window)?;
        append(&mut outside, rest, window)?;
    }
    let parts: Vec<Area> = taken.iter().cloned().chain(left).chain(outside).collect();
    let is_all = matches!(parts.as_slice(), [only] if only == whole);
    (is_all || partition(whole, &parts).is_ok()).then_some(parts)
}

/// Adds units in a window that follows the last: to the area before, if they are the same.
fn append(areas: &mut Vec<Area>, ranges: Vec<UnitRange>, window: Window) -> Option<()> {
    if ranges.is_empty() {
        return Some(());
    }
    let units = Units::new(ranges)?;
    match areas.iter_mut().find(|area| area.window.end == window.start && area.units == units) {
        Some(area) => area.window.end = window.end,
        None => areas.push(Area { units, window }),
    }
    Some(())
}

fn are_apart(parts: &[Area]) -> bool {
    let mut left = parts;
    while let [first, others @ ..] = left {
        if others.iter().any(|other| first.overlaps(other)) {
            return false;
        }
        left = others;
    }
    true
}

/// Ascending ranges as units, those that touch made one.
fn joined(ranges: &[UnitRange]) -> Result<Units, Misfit> {
    let mut made: Vec<UnitRange> = Vec::new();
    for range in ranges {
        match made.last_mut() {
            Some(last) if range.first < last.end => return Err(Misfit::Sum),
            Some(last) if range.first == last.end => last.end = range.end,
            _ => made.push(*range),
        }
    }
    Units::new(made).ok_or(Misfit::Apart)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units as `(first, end)` ranges, and a window.
    fn area(ranges: &[(u32, u32)], start: u32, end: u32) -> Area {
        let ranges = ranges.iter().map(|&(first, end)| UnitRange { first, end }).collect();
        Area { units: Units::new(ranges).unwrap(), window: Window { start, end } }
    }

    #[test]
    fn what_is_left_of_a_cut_stays_apart_from_what_was_not_for_sale() {
        let whole = area(&[(0, 4)], 10, 20);
        let all = |parts: &[Area]| partition(&whole, parts);
        // All of it for sale, and all of it sold.
        assert_eq!(cut(&whole, &whole, std::slice::from_ref(&whole)), Some(vec![whole.clone()]));
        let sold = area(&[(0, 1)], 12, 14);
        let parts = cut(&whole, &whole, std::slice::from_ref(&sold)).unwrap();
        let left = [area(&[(0, 4)], 10, 12), area(&[(1, 4)], 12, 14), area(&[(0, 4)], 14, 20)];
        assert_eq!(parts, [&[sold.clone()][..], &left[..]].concat());
        assert_eq!(all(&parts), Ok(()));
        // A corner of it for sale, of which two rows take something.
        let kept = area(&[(0, 2)], 10, 16);
        let rows = [area(&[(0, 1)], 10, 12), area(&[(0, 2)], 12, 14)];
        let parts = cut(&whole, &kept, &rows).unwrap();
        let left = [
            area(&[(1, 2)], 10, 12),
            area(&[(0, 2)], 14, 16),
            area(&[(2, 4)], 10, 16),
            area(&[(0, 4)], 16, 20),
        ];
        assert_eq!(parts, [&rows[..], &left[..]].concat());
        assert_eq!(all(&parts), Ok(()));
        // Nothing taken twice or from outside, and no more parts than a split may have.
        assert_eq!(cut(&whole, &whole, &[sold.clone(), sold]), None);
        assert_eq!(cut(&whole, &kept, &[area(&[(3, 5)], 10, 12)]), None);
        let many: Vec<Area> = (10..20).map(|slot| area(&[(0, 1)], slot, slot + 1)).collect();
        assert_eq!(cut(&whole, &whole, &many).map(|parts| parts.len()), Some(11));
        let chess: Vec<Area> =
            (10..20).map(|slot| area(&[(slot % 2, slot % 2 + 1)], slot, slot + 1)).collect();
        assert_eq!(cut(&whole, &whole, &chess), None);
    }

    #[test]
    fn parts_have_everything_once() {
        let whole = area(&[(0, 4), (6, 8)], 10, 20);
        let late = area(&[(0, 4), (6, 8)], 15, 20);
        let table = [
            ("by time", vec![area(&[(0, 4), (6, 8)], 10, 15), late.clone()], Ok(())),
            ("by units", vec![area(&[(0, 2)], 10, 20), area(&[(2, 4), (6, 8)], 10, 20)], Ok(())),
            (
                "by both",
                vec![area(&[(0, 4)], 10, 15), area(&[(6, 8)], 10, 15), late.clone()],
                Ok(()),
            ),
            ("one part", vec![whole.clone()], Err(Misfit::Form)),
            ("none", vec![], Err(Misfit::Form)),
            (
                "a slot missing",
                vec![area(&[(0, 4), (6, 8)], 10, 14), late.clone()],
                Err(Misfit::Sum),
            ),
            ("a unit missing", vec![area(&[(0, 4)], 10, 15), late.clone()], Err(Misfit::Sum)),
            ("a slot twice", vec![area(&[(0, 4), (6, 8)], 10, 16), late.clone()], Err(Misfit::Sum)),
            // As many unit-slots as the whole, and yet not the whole.
            (
                "one twice, one missing",
                vec![area(&[(0, 2), (6, 8)], 10, 15), area(&[(0, 2)], 10, 15), late.clone()],
                Err(Misfit::Sum),
            ),
            (
                "too late",
                vec![area(&[(0, 4), (6, 8)], 10, 15), area(&[(0, 4), (6, 8)], 15, 21)],
                Err(Misfit::Outside),
            ),
            ("a foreign unit", vec![area(&[(0, 5)], 10, 15), late.clone()], Err(Misfit::Outside)),
            (
                "an empty window",
                vec![area(&[(0, 4), (6, 8)], 10, 15), late.clone(), area(&[(0, 1)], 15, 15)],
                Err(Misfit::Form),
            ),
        ];
        for (name, parts, expected) in table {
            assert_eq!(partition(&whole, &parts), expected, "{name}");
        }
        // The same units in another form than the one that they have.
        for ranges in [vec![(0, 1), (1, 4), (6, 8)], vec![(6, 8), (0, 4)], vec![(0, 4), (2, 4)]] {
            let ranges = ranges.into_iter().map(|(first, end)| UnitRange { first, end });
            let bytes = crate::wire::encode(&ranges.collect::<Vec<_>>());
            let units: Units = crate::wire::decode_record(&bytes).unwrap();
            let odd = Area { units, window: Window { start: 10, end: 15 } };
            assert_eq!(partition(&whole, &[odd, late.clone()]), Err(Misfit::Form));
        }
        let many = area(&[(0, 17)], 10, 11);
        let one = |unit: u32| area(&[(unit, unit + 1)], 10, 11);
        let seventeen: Vec<Area> = (0..17).map(one).collect();
        assert_eq!(partition(&many, &seventeen), Err(Misfit::Form));
        let mut sixteen: Vec<Area> = (0..15).map(one).collect();
        sixteen.push(area(&[(15, 17)], 10, 11));
        assert_eq!(partition(&many, &sixteen), Ok(()));
    }

    #[test]
    fn what_is_carved_out_and_what_is_left_add_up() {
        let whole = area(&[(0, 2), (5, 9)], 10, 20);
        let row = |qty, window: Option<(u32, u32)>| {
            carve(&whole, qty, window.map(|(start, end)| Window { start, end }))
        };
        let table = [
            (Some(3), None, 2),
            (None, Some((10, 12)), 2),
            (None, Some((12, 20)), 2),
            (None, Some((12, 15)), 3),
            (Some(1), Some((12, 15)), 4),
        ];
        for (qty, window, count) in table {
            let parts = row(qty, window).unwrap();
            assert_eq!(parts.len(), count, "{qty:?} {window:?}");
            assert_eq!(parts[0].units.count(), qty.unwrap_or(6));
            assert_eq!(partition(&whole, &parts), Ok(()));
        }
        let refused = [
            (None, None),
            (Some(6), Some((10, 20))),
            (Some(7), None),
            (Some(0), None),
            (None, Some((9, 12))),
            (None, Some((12, 21))),
            (None, Some((12, 12))),
        ];
        for (qty, window) in refused {
            assert_eq!(row(qty, window), None, "{qty:?} {window:?}");
        }
    }

    #[test]
    fn a_union_is_a_rectangle() {
        let (a, b) = (area(&[(0, 4)], 10, 15), area(&[(0, 4)], 15, 20));
        let table = [
            ("by time", vec![b.clone(), a.clone()], Ok(area(&[(0, 4)], 10, 20))),
            ("touching", vec![a.clone(), area(&[(4, 6)], 10, 15)], Ok(area(&[(0, 6)], 10, 15))),
            (
                "apart",
                vec![area(&[(5, 6)], 10, 15), a.clone()],
                Ok(area(&[(0, 4), (5, 6)], 10, 15)),
            ),
            ("one", vec![a.clone()], Err(Misfit::Form)),
            ("none", vec![], Err(Misfit::Form)),
            ("a gap", vec![a.clone(), area(&[(0, 4)], 16, 20)], Err(Misfit::Apart)),
            ("a slot twice", vec![a.clone(), area(&[(0, 4)], 14, 20)], Err(Misfit::Sum)),
            ("a unit twice", vec![a.clone(), area(&[(3, 6)], 10, 15)], Err(Misfit::Sum)),
            ("the same twice", vec![a.clone(), a.clone()], Err(Misfit::Sum)),
            ("other units", vec![a.clone(), area(&[(0, 5)], 15, 20)], Err(Misfit::Apart)),
        ];
        for (name, parts, expected) in table {
            assert_eq!(union(&parts.iter().collect::<Vec<_>>()), expected, "{name}");
        }
        let odd: Vec<Area> = (0..8).map(|n| area(&[(4 * n, 4 * n + 1)], 0, 1)).collect();
        let all: Vec<&Area> = odd.iter().collect();
        assert!(union(&all).is_ok());
        let wide: Vec<(u32, u32)> = (0..9).map(|n| (4 * n + 2, 4 * n + 3)).collect();
        let wide = area(&wide, 0, 1);
        let ranges = vec![&odd[0], &odd[1], &odd[2], &odd[3], &odd[4], &odd[5], &odd[6], &wide];
        assert_eq!(union(&ranges).map(|area| area.units.ranges().len()), Ok(16));
        let wider = area(&(0..10).map(|n| (4 * n + 2, 4 * n + 3)).collect::<Vec<_>>(), 0, 1);
        let ranges = vec![&odd[0], &odd[1], &odd[2], &odd[3], &odd[4], &odd[5], &odd[6], &wider];
        assert_eq!(union(&ranges), Err(Misfit::Apart));
        let nine: Vec<Area> = (0..9).map(|n| area(&[(n, n + 1)], 0, 1)).collect();
        assert_eq!(union(&nine.iter().collect::<Vec<_>>()), Err(Misfit::Form));
    }
}
