//! [`DeliveryGuarantee`]: how often a row is there in the end.

/// What a sink promises of its rows, whatever fails and starts again. Both need checkpoints; without them a job that fails begins anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryGuarantee {
    /// Each row once. Rows become visible when the checkpoint that they are in is complete.
    #[default]
    ExactlyOnce,
    /// Each row once or more often. Rows become visible without waiting for the checkpoint; those since the last one come again
    /// after a failure.
    AtLeastOnce,
}
