//! Who hears whom: graphs of nodes, drawn from a seed where chance has a part.

use std::collections::{BTreeSet, VecDeque};

/// A link, the smaller number first.
pub type Edge = (usize, usize);

/// Nodes `0..nodes` and the links between them.
#[derive(Clone, Debug, PartialEq)]
pub struct Graph {
    /// What it is, for people: `grid 25`.
    pub name: String,
    /// The number of nodes.
    pub nodes: usize,
    /// Who hears whom; always in both directions.
    pub edges: BTreeSet<Edge>,
    /// Where the nodes stand, in metres; only of geometric graphs.
    places: Vec<(f64, f64)>,
}

/// How far a node of a geometric graph is heard, in metres.
const RANGE: f64 = 200.0;
/// Nodes in range of a node, on average, away from the border.
const DENSITY: f64 = 8.0;

impl Graph {
    fn of(name: String, nodes: usize, edges: impl IntoIterator<Item = Edge>) -> Self {
        let edges = edges.into_iter().map(ordered).collect();
        Self { name, nodes, edges, places: Vec::new() }
    }

    /// 0 – 1 – 2 …
    pub fn line(nodes: usize) -> Self {
        Self::of(format!("line {nodes}"), nodes, (1..nodes).map(|at| (at - 1, at)))
    }

    /// A line whose ends meet.
    pub fn ring(nodes: usize) -> Self {
        Self::of(format!("ring {nodes}"), nodes, (0..nodes).map(|at| (at, (at + 1) % nodes)))
    }

    /// Rows of about the square root of `nodes`; each node hears those above, below, left and right.
    pub fn grid(nodes: usize) -> Self {
        let width = (1..=nodes).find(|w| w * w >= nodes).unwrap_or(1);
        let right = (1..nodes).filter(|at| at % width != 0).map(|at| (at - 1, at));
        let down = (width..nodes).map(|at| (at - width, at));
        Self::of(format!("grid {nodes}"), nodes, right.chain(down))
    }

    /// Nodes at random places of a square field, each heard up to 200 m away; connected. The same seed gives
    /// the same graph.
    pub fn geometric(nodes: usize, seed: u64) -> Self {
        let side = RANGE * (nodes as f64 * std::f64::consts::PI / DENSITY).sqrt();
        let mut chance = Chance::new(seed);
        loop {
            let places = (0..nodes).map(|_| (chance.unit() * side, chance.unit() * side)).collect();
            let graph = Self::at(format!("rgg {nodes}"), places);
            if graph.is_connected() {
                return graph;
            }
        }
    }

    fn at(name: String, places: Vec<(f64, f64)>) -> Self {
        let near = |(a, b): &Edge| match (places.get(*a), places.get(*b)) {
            (Some(a), Some(b)) => (a.0 - b.0).hypot(a.1 - b.1) <= RANGE,
            _ => false,
        };
        let pairs = (0..places.len()).flat_map(|b| (0..b).map(move |a| (a, b)));
        let edges: Vec<Edge> = pairs.filter(near).collect();
        let mut graph = Self::of(name, places.len(), edges);
        graph.places = places;
        graph
    }

    /// The geometric graph after every node has gone `metres` in a direction of its own; connected.
    pub fn moved(&self, metres: f64, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        loop {
            let step = |place: &(f64, f64)| {
                let angle = chance.unit() * std::f64::consts::TAU;
                (place.0 + metres * angle.cos(), place.1 + metres * angle.sin())
            };
            let graph = Self::at(self.name.clone(), self.places.iter().map(step).collect());
            if graph.is_connected() {
                return graph;
            }
        }
    }

    /// Those that hear `node`.
    pub fn neighbors(&self, node: usize) -> impl Iterator<Item = usize> + '_ {
        self.edges.iter().filter_map(move |(a, b)| match node {
            n if n == *a => Some(*b),
            n if n == *b => Some(*a),
            _ => None,
        })
    }

    /// Hops from `from` to each node; `None` where there is no way.
    pub fn hops(&self, from: usize) -> Vec<Option<usize>> {
        let mut hops = vec![None; self.nodes];
        if let Some(start) = hops.get_mut(from) {
            *start = Some(0);
        }
        let mut queue = VecDeque::from([(from, 0)]);
        while let Some((at, far)) = queue.pop_front() {
            for next in self.neighbors(at) {
                if let Some(room @ None) = hops.get_mut(next) {
                    *room = Some(far + 1);
                    queue.push_back((next, far + 1));
                }
            }
        }
        hops
    }

    /// True if every node reaches every other.
    pub fn is_connected(&self) -> bool {
        self.hops(0).iter().all(Option::is_some)
    }

    /// The graph without a link.
    pub fn without(&self, edge: Edge) -> Self {
        let mut left = self.clone();
        left.edges.remove(&ordered(edge));
        left
    }

    /// The graph without the links of a node.
    pub fn without_node(&self, node: usize) -> Self {
        let mut left = self.clone();
        left.edges.retain(|(a, b)| *a != node && *b != node);
        left
    }

    /// True if all but `node` still reach one another when it is gone.
    pub fn is_spare(&self, node: usize) -> bool {
        let start = usize::from(node == 0);
        let hops = self.without_node(node).hops(start);
        hops.iter().enumerate().all(|(at, h)| at == node || h.is_some())
    }

    /// Two nodes that are as far apart as any.
    pub fn corners(&self) -> (usize, usize) {
        let far = |from: usize| {
            let hops = self.hops(from);
            hops.into_iter().enumerate().filter_map(|(to, h)| Some((h?, to))).max().unwrap_or((0, from))
        };
        let best = (0..self.nodes).map(|from| (far(from), from)).max();
        best.map_or((0, 0), |((_, to), from)| (from, to))
    }

    /// The links between the nodes nearer to one corner and those nearer to the other: cutting them leaves
    /// two meshes (or more) of about the same size.
    pub fn middle(&self) -> Vec<Edge> {
        let (one, other) = self.corners();
        let (near, far) = (self.hops(one), self.hops(other));
        let side = |at: usize| near.get(at) < far.get(at);
        self.edges.iter().copied().filter(|(a, b)| side(*a) != side(*b)).collect()
    }
}

/// The smaller number first.
pub const fn ordered((a, b): Edge) -> Edge {
    if a < b { (a, b) } else { (b, a) }
}

/// Numbers from a seed (splitmix64): for drawing graphs and lots, not for secrets.
#[derive(Debug)]
pub struct Chance(u64);

impl Chance {
    /// The same seed, the same numbers.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly in 0..1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number below `n`; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        assert_eq!(Graph::line(4).edges, BTreeSet::from([(0, 1), (1, 2), (2, 3)]));
        assert_eq!(Graph::ring(3).edges, BTreeSet::from([(0, 1), (1, 2), (0, 2)]));
        let grid = Graph::grid(25);
        assert_eq!((grid.edges.len(), grid.neighbors(12).count(), grid.neighbors(0).count()), (40, 4, 2));
        assert_eq!(grid.hops(0)[24], Some(8));
        assert!(Graph::grid(7).is_connected());
    }

    #[test]
    fn corners_are_far_apart_and_the_middle_parts_them() {
        let grid = Graph::grid(25);
        let (a, b) = grid.corners();
        assert_eq!(grid.hops(a)[b], Some(8));
        let cut = grid.middle().into_iter().fold(grid.clone(), |g, e| g.without(e));
        assert_eq!(cut.hops(a)[b], None);
        let part = cut.hops(a).iter().flatten().count();
        assert!((8..=17).contains(&part), "{part}");
    }

    #[test]
    fn a_spare_node_leaves_the_others_connected() {
        assert!(Graph::ring(5).is_spare(0) && Graph::ring(5).is_spare(3));
        assert!(!Graph::line(3).is_spare(1) && Graph::line(3).is_spare(0));
    }

    #[test]
    fn geometric_graphs_follow_from_their_seed() {
        let graph = Graph::geometric(50, 1);
        assert!(graph.is_connected());
        assert_eq!(graph, Graph::geometric(50, 1));
        assert_ne!(graph.edges, Graph::geometric(50, 2).edges);
        let moved = graph.moved(50.0, 1);
        assert!(moved.is_connected());
        assert_ne!(moved.edges, graph.edges);
    }
}
