//! What simulations have been through.

/// What simulations have been through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SimReport {
    /// Seeds that ran.
    pub runs: u64,
    /// Times that the process was killed or had given up.
    pub deaths: u64,
    /// Lives that went on from a checkpoint.
    pub recoveries: u64,
    /// Restarts within a life.
    pub restarts: u64,
    /// Those of them in which a region was started again, and the others went on.
    pub region_restarts: u64,
    /// Checkpoints that were complete.
    pub checkpoints: u64,
    /// Checkpoints that were given up: something of theirs could not be written, or their time was up.
    pub checkpoints_failed: u64,
    /// Bytes of records that their barriers had overtaken.
    pub in_flight_bytes: u64,
    /// Lives that ended because the job was asked to stop, as `SIGTERM` does.
    pub stops: u64,
    /// Those of them in which the job was drained before, with [`drains`](super::Simulation::drains).
    pub drained: u64,
    /// Savepoints that were written, those included behind which the job stopped.
    pub savepoints: u64,
    /// Savepoints that the job began with, in a directory of its own.
    pub begun_with_savepoint: u64,
    /// Deaths with which the machine was lost, and its disk.
    pub machines_lost: u64,
    /// Checkpoints that were damaged on the disk, with [`damage`](super::Simulation::damage).
    pub damaged: u64,
    /// Those of them instead of which the one before was gone on from.
    pub went_back: u64,
    /// Those of them for which the job refused to start.
    pub refused: u64,
    /// Files that a reader has taken, in [`check_files`](super::Simulation::check_files), or that are there in the end, in
    /// [`check_files_in_place`](super::Simulation::check_files_in_place).
    pub files: u64,
}

impl SimReport {
    /// Adds what the lives under another seed have been through.
    pub(super) fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.deaths += other.deaths;
        self.recoveries += other.recoveries;
        self.restarts += other.restarts;
        self.region_restarts += other.region_restarts;
        self.checkpoints += other.checkpoints;
        self.checkpoints_failed += other.checkpoints_failed;
        self.in_flight_bytes += other.in_flight_bytes;
        self.stops += other.stops;
        self.drained += other.drained;
        self.savepoints += other.savepoints;
        self.begun_with_savepoint += other.begun_with_savepoint;
        self.machines_lost += other.machines_lost;
        self.damaged += other.damaged;
        self.went_back += other.went_back;
        self.refused += other.refused;
        self.files += other.files;
    }
}
