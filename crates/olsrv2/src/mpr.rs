//! MPR selection (RFC 7181 §18 and Appendix B): a pure function on a small graph.

use alloc::vec;
use alloc::vec::Vec;

/// WILL_ALWAYS.
const WILL_ALWAYS: u8 = 15;

/// An element x of N1: a willing symmetric neighbour.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidate {
    /// W(x), 1 ..= 15.
    pub(crate) will: u8,
    /// d1(x).
    pub(crate) distance: u32,
    /// N2(x) with d2(x, y): indices into N2.
    pub(crate) covers: Vec<(usize, u32)>,
    /// It is an MPR already; kept where it does no harm, so that sets don't flap.
    pub(crate) current: bool,
}

/// Chooses an MPR set. `direct[y]` is d1(y), if defined. Returns for each candidate whether it is in.
pub(crate) fn select(candidates: &[Candidate], direct: &[Option<u32>]) -> Vec<bool> {
    // d(y, N1)
    let mut best: Vec<u32> = direct.iter().map(|d| d.unwrap_or(u32::MAX)).collect();
    for x in candidates {
        for (y, cost) in reach(x) {
            lower(&mut best, y, cost);
        }
    }
    // y needs an MPR unless the direct way is as short (§18.3). x serves y if it gives d(y, N1).
    let needs = |y: usize| match (direct.get(y), best.get(y)) {
        (Some(Some(direct)), Some(best)) => best < direct,
        (Some(None), _) => true,
        _ => false,
    };
    let serves: Vec<Vec<usize>> = candidates
        .iter()
        .map(|x| {
            let good = reach(x).filter(|(y, cost)| needs(*y) && best.get(*y) == Some(cost));
            let mut good: Vec<usize> = good.map(|(y, _)| y).collect();
            good.sort_unstable();
            good.dedup();
            good
        })
        .collect();
    let mut chosen: Vec<bool> = candidates.iter().map(|x| x.will >= WILL_ALWAYS).collect();
    let mut cover = vec![0usize; direct.len()];
    // How many y that nobody chosen serves each x serves: kept, not counted anew, for N1 and N2 may be large.
    let mut servers: Vec<Vec<usize>> = vec![Vec::new(); direct.len()];
    for (i, y) in serves.iter().enumerate().flat_map(|(i, mine)| mine.iter().map(move |y| (i, *y))) {
        servers.get_mut(y).into_iter().for_each(|all| all.push(i));
    }
    let mut gain: Vec<usize> = serves.iter().map(Vec::len).collect();
    let mut take = |mine: &[usize], gain: &mut [usize]| {
        for y in mine {
            let Some(n) = cover.get_mut(*y) else { continue };
            *n += 1;
            if *n == 1 {
                for i in servers.get(*y).into_iter().flatten() {
                    gain.get_mut(*i).into_iter().for_each(|g| *g -= 1);
                }
            }
        }
    };
    for (mine, _) in serves.iter().zip(&chosen).filter(|(_, c)| **c) {
        take(mine, &mut gain);
    }
    loop {
        let next = candidates.iter().zip(&gain).enumerate().map(|(i, (x, gain))| (*gain, i, x));
        let next = next.filter(|(gain, i, _)| *gain > 0 && chosen.get(*i) == Some(&false));
        let next = next.max_by_key(|(gain, i, x)| {
            let degree = serves.get(*i).map_or(0, Vec::len);
            (x.will, *gain, x.current, degree, core::cmp::Reverse(*i))
        });
        let Some((_, i, _)) = next else { break };
        if let (Some(flag), Some(mine)) = (chosen.get_mut(i), serves.get(i)) {
            *flag = true;
            take(mine, &mut gain);
        }
    }
    prune(candidates, &serves, &mut cover, &mut chosen);
    chosen
}

/// d(x, y) of all y in N2(x).
fn reach(x: &Candidate) -> impl Iterator<Item = (usize, u32)> {
    x.covers.iter().map(|(y, d2)| (*y, x.distance.saturating_add(*d2)))
}

fn lower(best: &mut [u32], y: usize, cost: u32) {
    if let Some(b) = best.get_mut(y) {
        *b = (*b).min(cost);
    }
}

/// Drops members whose every y another member serves too, the least willing first.
fn prune(candidates: &[Candidate], serves: &[Vec<usize>], cover: &mut [usize], chosen: &mut [bool]) {
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    order.sort_by_key(|i| candidates.get(*i).map(|x| (x.will, x.current)));
    for i in order {
        let (Some(x), Some(mine), Some(flag)) = (candidates.get(i), serves.get(i), chosen.get_mut(i)) else {
            continue;
        };
        let spare = mine.iter().all(|y| cover.get(*y).is_some_and(|n| *n > 1));
        if *flag && x.will < WILL_ALWAYS && spare {
            *flag = false;
            for y in mine {
                cover.get_mut(*y).into_iter().for_each(|n| *n = n.saturating_sub(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn x(will: u8, distance: u32, covers: &[(usize, u32)]) -> Candidate {
        Candidate { will, distance, covers: covers.to_vec(), current: false }
    }

    #[test]
    fn rfc7181_18_3_the_only_way_is_chosen() {
        let set = select(&[x(7, 1, &[(0, 1)]), x(7, 1, &[])], &[None]);
        assert_eq!(set, [true, false]);
    }

    #[test]
    fn rfc7181_18_3_will_always_is_in_and_higher_willingness_wins() {
        assert_eq!(select(&[x(15, 1, &[]), x(7, 1, &[])], &[]), [true, false]);
        assert_eq!(select(&[x(3, 1, &[(0, 1)]), x(7, 1, &[(0, 1)])], &[None]), [false, true]);
    }

    #[test]
    fn rfc7181_18_3_a_direct_link_as_short_needs_no_mpr() {
        assert_eq!(select(&[x(7, 1, &[(0, 1)])], &[Some(2)]), [false]);
        assert_eq!(select(&[x(7, 1, &[(0, 1)])], &[Some(3)]), [true]);
    }

    #[test]
    fn current_mpr_is_kept_among_equals() {
        let mut two = [x(7, 1, &[(0, 1)]), x(7, 1, &[(0, 1)])];
        assert_eq!(select(&two, &[None]), [true, false]);
        two[1].current = true;
        assert_eq!(select(&two, &[None]), [false, true]);
    }

    fn candidate(ys: usize) -> impl Strategy<Value = Candidate> {
        let covers = proptest::collection::btree_map(0..ys, 1u32..20, 0..=ys);
        (1u8..=15, 1u32..20, covers, any::<bool>()).prop_map(|(will, distance, covers, current)| Candidate {
            will,
            distance,
            covers: covers.into_iter().collect(),
            current,
        })
    }

    proptest! {
        #[test]
        fn rfc7181_18_3_the_set_has_all_properties(
            candidates in proptest::collection::vec(candidate(8), 0..8),
            direct in proptest::collection::vec(proptest::option::of(1u32..30), 8)
        ) {
            let set = select(&candidates, &direct);
            let dist = |y: usize, all: bool| {
                let ways = candidates.iter().zip(&set).filter(|(_, s)| all || **s);
                let ways = ways.flat_map(|(c, _)| c.covers.iter().filter(|(i, _)| *i == y).map(|(_, d)| c.distance + d));
                ways.chain(direct[y]).min()
            };
            for (y, direct) in direct.iter().enumerate() {
                prop_assert_eq!(dist(y, false), dist(y, true));
                let covered = candidates.iter().any(|c| c.covers.iter().any(|(i, _)| *i == y));
                if direct.is_none() && covered {
                    prop_assert!(candidates.iter().zip(&set).any(|(c, s)| *s && c.covers.iter().any(|(i, _)| *i == y)));
                }
            }
            prop_assert!(candidates.iter().zip(&set).all(|(c, s)| c.will < 15 || *s));
        }
    }
}
