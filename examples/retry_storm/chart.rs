//! The attempts of each policy over time.

use crate::{
    Args,
    policy::SimulatedPolicy,
    server::OUTAGE,
    simulation::{COUNTED, Second, capacity},
};
use plotters::prelude::*;
use std::error::Error;

/// The colour and width of each policy's line. The first and the third cover each other.
/// Readers with any colour vision can distinguish the colours (Okabe and Ito).
const LINES: [(RGBColor, u32); 4] = [
    (RGBColor(240, 190, 90), 6),
    (RGBColor(0, 114, 178), 2),
    (RGBColor(90, 50, 10), 2),
    (RGBColor(0, 158, 115), 3),
];

/// Draws the chart, as an SVG.
pub fn draw(
    policies: &[SimulatedPolicy],
    records: &[Vec<Second>],
    args: &Args,
) -> Result<String, Box<dyn Error>> {
    let attempts = records.iter().flatten().map(|second| second.attempts);
    let capacity = capacity(args);
    let top = attempts.map(f64::from).fold(capacity, f64::max) * 1.1;
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, (800, 400)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..COUNTED as f64, 0.0..top)?;
    let corners = [(OUTAGE.start as f64, 0.0), (OUTAGE.end as f64, top)];
    let outage = Rectangle::new(corners, RGBColor(240, 228, 228).filled());
    chart.draw_series([outage])?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("seconds (shaded: the outage)")
        .y_desc("attempts per second")
        .draw()?;
    let mut draw_line = |name, points: Vec<(f64, f64)>, style: ShapeStyle| {
        let line = chart.draw_series(LineSeries::new(points, style))?;
        line.label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
        Ok::<_, Box<dyn Error>>(())
    };
    let ends = vec![(0.0, capacity), (COUNTED as f64, capacity)];
    draw_line("capacity", ends, BLACK.stroke_width(1))?;
    for ((policy, seconds), (color, width)) in policies.iter().zip(records).zip(LINES) {
        let middles = (0..COUNTED).map(|second| second as f64 + 0.5);
        let attempts = seconds.iter().map(|second| f64::from(second.attempts));
        let points = middles.zip(attempts).collect();
        draw_line(policy.name, points, color.stroke_width(width))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    drop((chart, area));
    Ok(svg)
}
