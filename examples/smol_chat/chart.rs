//! Points in time as columns of a chart.

use crate::timeline::ticks;
use std::{ops::Range, time::Duration};

/// The least distance between two ticks, in columns.
const TICK_DISTANCE: f64 = 9.0;

/// A chart of everything from zero to `end`.
pub struct Chart {
    /// Its width, in columns.
    pub width: usize,
    end: Duration,
}

impl Chart {
    pub fn new(end: Duration, width: usize) -> Self {
        Self {
            width: width.max(1),
            end: end.max(Duration::from_millis(1)),
        }
    }

    /// The columns of the ticks, with their labels.
    pub fn ticks(&self) -> impl Iterator<Item = (usize, String)> {
        let width = self.width as f64;
        ticks(self.end, TICK_DISTANCE / width)
            .into_iter()
            .map(move |(fraction, label)| ((fraction * width).round() as usize, label))
            .filter(|(column, _)| *column < self.width)
    }

    /// The labels of the ticks, as far as there is room for them.
    pub fn axis(&self) -> String {
        let mut axis = String::new();
        for (column, label) in self.ticks() {
            if column + label.len() <= self.width {
                axis = format!("{axis:<column$}{label}");
            }
        }
        axis
    }

    /// The column of a point in time.
    pub fn column(&self, time: Duration) -> usize {
        (self.position(time) as usize).min(self.width - 1)
    }

    /// The columns of steps that follow each other: to scale, except that even the shortest gets
    /// one, as long as there are enough of them.
    pub fn bars(
        &self,
        start: Duration,
        ends: impl IntoIterator<Item = Duration>,
    ) -> Vec<Range<usize>> {
        let mut start = self.position(start).round() as usize;
        let mut bars: Vec<_> = ends
            .into_iter()
            .map(|end| {
                let end = (self.position(end).round() as usize).max(start + 1);
                std::mem::replace(&mut start, end)..end
            })
            .collect();
        let mut limit = self.width;
        for bar in bars.iter_mut().rev() {
            bar.end = bar.end.min(limit);
            bar.start = bar.start.min(bar.end.saturating_sub(1));
            limit = bar.start;
        }
        bars
    }

    fn position(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.end.as_secs_f64() * self.width as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_to_scale_and_visible() {
        let bars = |width, ends: &[u64]| {
            let ends = ends.iter().map(|end| Duration::from_secs(*end));
            Chart::new(Duration::from_secs(10), width).bars(Duration::ZERO, ends)
        };
        assert_eq!(bars(20, &[1, 5, 10]), [0..2, 2..10, 10..20]);
        let shortest_at_the_end = [0..1, 1..4, 4..5, 5..9, 9..10];
        assert_eq!(bars(10, &[0, 4, 4, 10, 10]), shortest_at_the_end);
        let too_many = [0..0, 0..0, 0..1, 1..2];
        assert_eq!(bars(2, &[10, 10, 10, 10]), too_many);
    }
}
