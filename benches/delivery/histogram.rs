//! Counts latencies in constant memory, within 1.6 %.
//!
//! Each power of two is cut into 64 equal steps, as in Gil Tene's HDR histogram.

use crate::protocol::Quantiles;

/// Steps of a power of two, as a power of two.
const STEP_BITS: u32 = 6;
const STEPS: usize = 1 << STEP_BITS;
/// Enough for every `u64`.
const CELLS: usize = STEPS * (64 - STEP_BITS as usize + 1);

/// Microseconds, counted.
pub(crate) struct Histogram {
    cells: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { cells: vec![0; CELLS], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one value.
    pub(crate) fn record(&mut self, micros: u64) {
        self.cells[cell(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// All zero when nothing was counted.
    pub(crate) fn quantiles(&self) -> Quantiles {
        Quantiles { p50: self.quantile(50), p99: self.quantile(99), max: self.max }
    }

    /// The value that `percent` of all are not above.
    fn quantile(&self, percent: u64) -> u64 {
        let rank = (self.count * percent).div_ceil(100).max(1);
        let mut seen = 0;
        for (number, &count) in self.cells.iter().enumerate() {
            seen += count;
            if rank <= seen {
                return highest(number).min(self.max);
            }
        }
        self.max
    }
}

fn cell(value: u64) -> usize {
    let shift = (u64::BITS - value.leading_zeros()).saturating_sub(STEP_BITS + 1);
    let step = usize::try_from(value >> shift).expect("7 bits");
    step + STEPS * shift as usize
}

/// The highest value that falls into a cell.
fn highest(cell: usize) -> u64 {
    if cell < STEPS {
        return cell as u64;
    }
    let shift = cell / STEPS - 1;
    let step = (cell % STEPS + STEPS) as u64;
    ((step + 1) << shift) - 1
}
