//! Where a point in time is in a chart.

#![allow(dead_code, reason = "each program uses its own part")]

use std::{iter, ops::Range, time::Duration};

/// The time axis of a chart.
pub struct Scale {
    /// The width of the chart, in columns.
    pub width: usize,
    /// The columns of the ticks, with their labels.
    pub ticks: Vec<(usize, String)>,
    columns_per_second: f64,
}

impl Scale {
    /// Makes room for everything from zero to `end`, with ticks that are at least `distance` columns
    /// apart.
    pub fn new(end: Duration, width: usize, distance: usize) -> Self {
        let width = width.max(1);
        let end = end.max(Duration::from_millis(1));
        let columns_per_second = width as f64 / end.as_secs_f64();
        let (step, decimals) = (-3..9)
            .flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, power)))
            .map(|(digit, power)| (digit * 10f64.powi(power), 0.max(-power) as usize))
            .find(|(step, _)| step * columns_per_second >= distance as f64)
            .unwrap_or((f64::INFINITY, 0));
        let ticks = iter::successors(Some(0.0), |time| Some(time + step))
            .map(|time| ((time * columns_per_second).round(), time))
            .take_while(|(column, _)| *column < width as f64)
            .map(|(column, time)| (column as usize, format!("{time:.decimals$} s")))
            .collect();
        Self {
            width,
            ticks,
            columns_per_second,
        }
    }

    /// The labels of the ticks, as far as there is room for them.
    pub fn axis(&self) -> String {
        let mut axis = String::new();
        for (column, label) in &self.ticks {
            if column + label.len() <= self.width {
                axis = format!("{axis:<column$}{label}");
            }
        }
        axis
    }

    /// The column that shows what happened at `time`.
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
        time.as_secs_f64() * self.columns_per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(width: usize, ends: &[u64]) -> Vec<Range<usize>> {
        let ends = ends.iter().map(|end| Duration::from_secs(*end));
        Scale::new(Duration::from_secs(10), width, 9).bars(Duration::ZERO, ends)
    }

    #[test]
    fn bars_are_to_scale() {
        assert_eq!(bars(20, &[1, 5, 10]), [0..2, 2..10, 10..20]);
    }

    #[test]
    fn the_shortest_bars_are_visible_up_to_the_end() {
        assert_eq!(
            bars(10, &[0, 4, 4, 10, 10]),
            [0..1, 1..4, 4..5, 5..9, 9..10]
        );
    }

    #[test]
    fn too_many_bars_do_no_harm() {
        assert_eq!(bars(2, &[10, 10, 10, 10]), [0..0, 0..0, 0..1, 1..2]);
    }

    #[test]
    fn the_axis_has_round_labels() {
        let axis = |seconds| Scale::new(Duration::from_secs_f64(seconds), 40, 9).axis();
        assert_eq!(axis(3.0), "0 s          1 s           2 s");
        assert_eq!(axis(0.01), "0.000 s             0.005 s");
        assert_eq!(axis(4000.0), "0 s       1000 s    2000 s    3000 s");
    }
}
