//! Regions: the parts of a job that exchange nothing. No channel leads from one to another, so one may fail and go back to a
//! checkpoint while the others go on.
//!
//! Two chains are in the same region when an edge connects them, or when both are in the same region as a third. A stream that is
//! forked is in the region of both its halves.

use super::{graph::JobGraph, metrics::OperatorInfo, operator::OperatorIndex};

/// Number of a region in its job: in the order of their first chains.
pub type RegionIndex = usize;

/// Which part of a job is in which region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Regions {
    count: usize,
    nodes: Vec<RegionIndex>,
    operators: Vec<RegionIndex>,
    edges: Vec<RegionIndex>,
}

/// A chain, and the edges that it is connected by.
struct Connected<'a> {
    operators: &'a [OperatorIndex],
    reads: &'a [usize],
}

impl Regions {
    /// The regions of a job.
    pub fn of(graph: &JobGraph) -> Self {
        let chains: Vec<Connected<'_>> = graph
            .nodes
            .iter()
            .map(|node| Connected { operators: &node.operators, reads: &node.reads })
            .collect();
        let writers: Vec<OperatorIndex> = graph.edges.iter().map(|edge| edge.operator).collect();
        Self::connected(&chains, &writers, graph.operators.len())
    }

    /// The job as one region, whatever is connected in it: it fails as a whole.
    #[must_use]
    pub fn united(self) -> Self {
        let Self { nodes, operators, edges, .. } = self;
        let all = |parts: Vec<RegionIndex>| vec![0; parts.len()];
        Self { count: 1, nodes: all(nodes), operators: all(operators), edges: all(edges) }
    }

    /// As many regions as this, each with one chain of one operator.
    #[cfg(test)]
    pub(crate) fn apart(count: usize) -> Self {
        let each = || (0..count).collect();
        Self { count, nodes: each(), operators: each(), edges: Vec::new() }
    }

    /// The connected parts of a graph of chains; `writers` are the operators that write to each edge.
    fn connected(chains: &[Connected<'_>], writers: &[OperatorIndex], operators: usize) -> Self {
        let mut nodes: Vec<RegionIndex> = (0..chains.len()).collect();
        let writes = |edge: usize| chains.iter().position(|chain| chain.operators.contains(&writers[edge]));
        for (reader, chain) in chains.iter().enumerate() {
            for writer in chain.reads.iter().filter_map(|edge| writes(*edge)) {
                let (kept, gone) = (nodes[reader].min(nodes[writer]), nodes[reader].max(nodes[writer]));
                nodes.iter_mut().filter(|region| **region == gone).for_each(|region| *region = kept);
            }
        }
        // Each region has the number of its first chain, which leaves gaps.
        let mut firsts = nodes.clone();
        firsts.sort_unstable();
        firsts.dedup();
        nodes.iter_mut().for_each(|region| *region = firsts.partition_point(|first| first < region));
        // An operator of a stream that nobody uses is in no chain, and nothing is ever asked about it.
        let mut of_operator = vec![0; operators];
        for (chain, region) in chains.iter().zip(&nodes) {
            chain.operators.iter().for_each(|operator| of_operator[*operator as usize] = *region);
        }
        let edges = writers.iter().map(|operator| of_operator[*operator as usize]).collect();
        Self { count: firsts.len(), nodes, operators: of_operator, edges }
    }

    /// Number of regions.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether one may fail without the others.
    pub fn are_many(&self) -> bool {
        self.count > 1
    }

    /// The region of the chain with this index.
    pub fn of_node(&self, node: usize) -> RegionIndex {
        self.nodes[node]
    }

    /// The region of an operator.
    pub fn of_operator(&self, operator: OperatorIndex) -> RegionIndex {
        self.operators[operator as usize]
    }

    /// The region of the edge with this index.
    pub fn of_edge(&self, edge: usize) -> RegionIndex {
        self.edges[edge]
    }

    /// What messages call a region's operators.
    pub fn names(&self, region: RegionIndex, operators: &[OperatorInfo]) -> Vec<String> {
        let own = operators.iter().zip(&self.operators).filter(|(_, own)| **own == region);
        own.map(|(info, _)| info.label()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The regions of chains with these operators, which read these edges; edges are told by who writes to them.
    fn regions(chains: &[(&[OperatorIndex], &[usize])], writers: &[OperatorIndex]) -> Regions {
        let operators = chains.iter().map(|(operators, _)| operators.len()).sum();
        let chains: Vec<_> = chains.iter().map(|(operators, reads)| Connected { operators, reads }).collect();
        Regions::connected(&chains, writers, operators)
    }

    #[test]
    fn chains_that_an_edge_connects_are_one_region() {
        let job = regions(&[(&[0, 1], &[]), (&[2], &[0])], &[1]);
        assert_eq!((job.count(), job.are_many()), (1, false));
        assert_eq!((job.of_node(0), job.of_node(1), job.of_operator(2), job.of_edge(0)), (0, 0, 0, 0));
    }

    #[test]
    fn chains_without_a_common_edge_are_regions_of_their_own() {
        // Described in turns: source a, source b, sink a, sink b.
        let job = regions(&[(&[0], &[]), (&[1], &[]), (&[2], &[0]), (&[3], &[1])], &[0, 1]);
        assert_eq!(job.count(), 2);
        assert_eq!([0, 1, 2, 3].map(|node| job.of_node(node)), [0, 1, 0, 1]);
        assert_eq!([0, 1, 2, 3].map(|operator| job.of_operator(operator)), [0, 1, 0, 1]);
        assert_eq!([0, 1].map(|edge| job.of_edge(edge)), [0, 1]);
    }

    #[test]
    fn a_union_makes_one_region_of_two_and_a_fork_keeps_one() {
        // Three sources, of which the first and the last are united; that stream is forked.
        let chains: [(&[OperatorIndex], &[usize]); 6] =
            [(&[0], &[]), (&[1], &[]), (&[2], &[]), (&[3, 4], &[0, 1]), (&[5], &[2]), (&[6], &[3])];
        let job = regions(&chains, &[0, 2, 3, 4]);
        assert_eq!(job.count(), 2);
        assert_eq!([0, 1, 2, 3, 4, 5].map(|node| job.of_node(node)), [0, 1, 0, 0, 0, 0]);
        let infos = "abcdefg".chars().map(String::from).map(|name| OperatorInfo { id: name.clone(), name });
        let infos: Vec<_> = infos.collect();
        assert_eq!(job.names(1, &infos), ["b"]);
    }

    #[test]
    fn a_chain_from_source_to_sink_is_a_region() {
        let job = regions(&[(&[0, 1], &[]), (&[2, 3], &[]), (&[4], &[])], &[]);
        assert_eq!((job.count(), job.of_operator(3), job.of_operator(4)), (3, 1, 2));
        let whole = job.united();
        assert_eq!((whole.count(), whole.of_operator(3), whole.of_node(2)), (1, 0, 0));
    }
}
