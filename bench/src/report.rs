//! How a figure is printed: one JSON object per line, or one line of text for people.

use std::io::{self, Write};

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{error::BenchError, versus::Versus};

/// One figure. What does not apply is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Line {
    /// The case as it was asked for, such as `nexmark`.
    pub bench: String,
    /// The part of the case that this figure is about, such as `q5`.
    pub case: String,
    /// Cores that each side could use.
    pub cores: usize,
    /// The figure: a median when there were several rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<f64>,
    /// Unit of `value` and `peer_value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'static str>,
    /// Who else did the same in this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer: Option<&'static str>,
    /// The peer's median.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peer_value: Option<f64>,
    /// `value / peer_value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// Smallest and largest of the rounds: of their ratios when there is a peer, else of their values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<[f64; 2]>,
    /// Events or records of one round.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// Events per second of event time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<u64>,
    /// Latencies, in a run that measures them.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub latencies: Option<Latencies>,
    /// The machine's own 99.9th percentile at the same time: see [`crate::floor`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_p999_us: Option<f64>,
    /// The machine's own 99.99th percentile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_p9999_us: Option<f64>,
}

/// Percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latencies {
    /// The median.
    pub p50_us: f64,
    /// 90 %.
    pub p90_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// 99.99 %.
    pub p9999_us: f64,
    /// The largest.
    pub max_us: f64,
}

impl Latencies {
    /// The percentiles of a histogram of nanoseconds.
    pub fn of_nanos(histogram: &Histogram<u64>) -> Self {
        let latencies = Self::of_quantiles(|quantile| histogram.value_at_quantile(quantile));
        Self { max_us: histogram.max() as f64 / 1e3, ..latencies }
    }

    /// The percentiles that a histogram tells in nanoseconds.
    pub fn of_quantiles(nanos: impl Fn(f64) -> u64) -> Self {
        let us = |quantile| nanos(quantile) as f64 / 1e3;
        Self {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            p9999_us: us(0.9999),
            max_us: us(1.0),
        }
    }
}

impl Line {
    /// A line without figures yet.
    pub fn new(bench: &str, case: &str, cores: usize) -> Self {
        Self { bench: bench.into(), case: case.into(), cores, ..Self::default() }
    }

    /// One figure.
    #[must_use]
    pub fn value(mut self, value: f64, unit: &'static str) -> Self {
        self.value = Some(value);
        self.unit = Some(unit);
        self
    }

    /// The median of several rounds, and their spread.
    #[must_use]
    pub fn rounds(self, rounds: &crate::versus::Rounds, unit: &'static str) -> Self {
        let mut line = self.value(rounds.median(), unit);
        line.spread = Some(rounds.spread());
        line
    }

    /// Both sides of a ratio, measured in turn.
    #[must_use]
    pub fn versus(self, versus: &Versus, unit: &'static str, peer: &'static str) -> Self {
        let mut line = self.value(versus.ours.median(), unit);
        line.peer = Some(peer);
        line.peer_value = Some(versus.peer.median());
        line.ratio = Some(versus.ratio());
        line.spread = Some(versus.ratios().spread());
        line
    }

    /// The size of a round, and its event time.
    #[must_use]
    pub fn over(mut self, events: u64, rate_per_s: Option<u64>) -> Self {
        self.events = Some(events);
        self.rate = rate_per_s;
        self
    }

    /// Latencies in nanoseconds, beside the floor that was measured with them.
    #[must_use]
    pub fn latencies(mut self, histogram: &Histogram<u64>, floor: &Histogram<u64>) -> Self {
        self.latencies = Some(Latencies::of_nanos(histogram));
        let floor = Latencies::of_nanos(floor);
        self.floor_p999_us = Some(floor.p999_us);
        self.floor_p9999_us = Some(floor.p9999_us);
        self
    }

    fn text(&self) -> String {
        let mut text = format!("{:<18} {:<28} {} cores", self.bench, self.case, self.cores);
        if let (Some(value), Some(unit)) = (self.value, self.unit) {
            text += &format!("  {:>12} {unit}", number(value));
        }
        if let (Some(peer), Some(value), Some(ratio)) = (self.peer, self.peer_value, self.ratio) {
            text += &format!("  {peer} {}  ratio {ratio:.3}", number(value));
        }
        if let Some([least, most]) = self.spread {
            text += &format!("  [{} … {}]", number(least), number(most));
        }
        if let Some(events) = self.events {
            text += &format!("  of {}", number(events as f64));
        }
        if let Some(rate) = self.rate {
            text += &format!(" at {}/s", number(rate as f64));
        }
        if let Some(l) = self.latencies {
            text += &format!(
                "  p50 {} p90 {} p99 {} p99.9 {} p99.99 {} max {} µs",
                number(l.p50_us),
                number(l.p90_us),
                number(l.p99_us),
                number(l.p999_us),
                number(l.p9999_us),
                number(l.max_us)
            );
        }
        if let Some(floor) = self.floor_p999_us {
            text += &format!("  (floor p99.9 {} µs", number(floor));
            text += &self.floor_p9999_us.map_or(String::new(), |p9999| format!(" p99.99 {}", number(p9999)));
            text += ")";
        }
        text
    }
}

/// Three digits behind the point for small numbers, suffixes for large ones.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1e9 => format!("{:.2}G", value / 1e9),
        v if v >= 1e6 => format!("{:.2}M", value / 1e6),
        v if v >= 1e4 => format!("{:.1}k", value / 1e3),
        v if v >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.3}"),
    }
}

/// Where lines go.
pub struct Reporter {
    out: Box<dyn Write + Send>,
    json: bool,
}

impl Reporter {
    /// Prints to standard output.
    pub fn stdout(json: bool) -> Self {
        Self::new(Box::new(io::stdout()), json)
    }

    /// Prints to `out`.
    pub fn new(out: Box<dyn Write + Send>, json: bool) -> Self {
        Self { out, json }
    }

    /// Prints one line, at once.
    ///
    /// # Errors
    /// [`BenchError::Output`] when it cannot be written.
    pub fn print(&mut self, line: &Line) -> Result<(), BenchError> {
        let text =
            if self.json { serde_json::to_string(line).map_err(io::Error::other)? } else { line.text() };
        writeln!(self.out, "{text}")?;
        self.out.flush()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::versus::Rounds;

    #[test]
    fn json_has_the_stated_names_and_leaves_out_the_rest() {
        let versus =
            Versus { ours: Rounds::from(vec![4.0, 6.0, 5.0]), peer: Rounds::from(vec![2.0, 2.0, 2.5]) };
        let line = Line::new("nexmark", "q0", 2).versus(&versus, "events/s", "peer").over(10, Some(100));
        let json: serde_json::Value = serde_json::from_str(&serde_json::to_string(&line).unwrap()).unwrap();
        let expected = serde_json::json!({
            "bench": "nexmark", "case": "q0", "cores": 2, "value": 5.0, "unit": "events/s", "peer": "peer",
            "peer_value": 2.0, "ratio": 2.5, "spread": [2.0, 3.0], "events": 10, "rate": 100,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn latencies_are_flat_and_in_microseconds() {
        let mut histogram = Histogram::<u64>::new(3).unwrap();
        (1..=1000).for_each(|us| histogram.record(us * 1000).unwrap());
        let line = Line::new("hop", "spin", 2).latencies(&histogram, &histogram);
        let json = serde_json::to_value(&line).unwrap();
        for (name, us) in [("p50_us", 500.0), ("p99_us", 990.0), ("max_us", 1000.0), ("floor_p999_us", 999.0)]
        {
            let value = json[name].as_f64().unwrap();
            assert!((value / us - 1.0).abs() < 2e-3, "{name} is {value}");
        }
        assert!(json.get("value").is_none());
    }
}
