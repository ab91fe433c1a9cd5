//! Which cores this process may use, and which worker gets which.

use std::sync::OnceLock;

/// The cores on which a job can run.
#[derive(Clone, Debug, PartialEq)]
pub struct Cores {
    /// Indices of the cores in the process's affinity mask, ascending; never empty.
    pub mask: Vec<usize>,
    /// CPU time that the cgroup allows, in cores; `None` without a quota.
    pub quota: Option<f64>,
}

impl Cores {
    /// Reads the mask and the quota of this process. The mask is read at the first call and kept, because it is the
    /// calling thread's: a thread that is pinned later would see its own core only.
    pub fn of_this_process() -> Self {
        static MASK: OnceLock<Vec<usize>> = OnceLock::new();
        let mask = MASK.get_or_init(|| {
            let mut ids: Vec<usize> =
                core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
            if ids.is_empty() {
                ids = (0..std::thread::available_parallelism().map_or(1, usize::from)).collect();
            }
            ids.sort_unstable();
            ids
        });
        Self { mask: mask.clone(), quota: super::cgroup::cpu_quota_of_this_process() }
    }

    /// How many workers can really run at once: the smaller of mask and quota, the quota rounded up.
    pub fn usable(&self) -> usize {
        let allowed = self.quota.map_or(usize::MAX, |quota| (quota.ceil() as usize).max(1));
        self.mask.len().min(allowed).max(1)
    }

    /// The core of each of `workers` workers, or `None` where the kernel had better place it: when there are more workers
    /// than cores, and under a quota below the mask, where every process that pins would pick the
    /// same cores of a large machine.
    pub fn assign(&self, workers: usize) -> Vec<Option<usize>> {
        if workers > self.mask.len() || self.usable() < self.mask.len() {
            return vec![None; workers];
        }
        self.mask.iter().take(workers).map(|&core| Some(core)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(mask: &[usize], quota: Option<f64>) -> Cores {
        Cores { mask: mask.to_vec(), quota }
    }

    #[test]
    fn a_quota_caps_the_mask_and_is_rounded_up() {
        assert_eq!(cores(&[0, 1, 2, 3], None).usable(), 4);
        assert_eq!(cores(&[0, 1, 2, 3], Some(1.5)).usable(), 2);
        assert_eq!(cores(&[0, 1, 2, 3], Some(0.1)).usable(), 1);
        assert_eq!(cores(&[5], Some(64.0)).usable(), 1);
    }

    #[test]
    fn workers_are_pinned_to_the_cores_of_the_mask() {
        assert_eq!(cores(&[2, 5], None).assign(2), [Some(2), Some(5)]);
        assert_eq!(cores(&[2, 5], None).assign(1), [Some(2)]);
    }

    #[test]
    fn more_workers_than_cores_float() {
        assert_eq!(cores(&[2, 5], None).assign(3), [None, None, None]);
    }

    #[test]
    fn a_quota_below_the_mask_keeps_workers_floating() {
        assert_eq!(cores(&[0, 1, 2, 3], Some(2.0)).assign(2), [None, None]);
        assert_eq!(cores(&[0, 1], Some(2.0)).assign(2), [Some(0), Some(1)]);
    }

    #[test]
    fn this_process_has_a_core() {
        let here = Cores::of_this_process();
        assert!(here.usable() >= 1);
        assert!(here.mask.is_sorted());
    }
}
