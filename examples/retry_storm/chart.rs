//! The attempts of each policy over time.

use crate::{
    contender::Contender,
    record::{self, Record},
    scenario::Scenario,
};
use plotters::prelude::*;
use std::{error::Error, time::Duration};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (800, 400);

/// How many slices lie between two points of a line.
const STEP: usize = 2;

/// The line of each policy. The first and the third cover each other, so the first is wider.
/// The colours are those of Okabe and Ito, which readers of any colour vision tell apart.
const LINES: [(RGBColor, u32); 4] = [
    (RGBColor(240, 190, 90), 6),
    (RGBColor(0, 114, 178), 2),
    (RGBColor(90, 50, 10), 2),
    (RGBColor(0, 158, 115), 3),
];
const GREY: RGBColor = RGBColor(90, 90, 90);
const SHADE: RGBColor = RGBColor(240, 228, 228);

/// Draws the chart, as an SVG.
pub fn draw(
    contenders: &[Contender],
    records: &[Record],
    scenario: &Scenario,
) -> Result<String, Box<dyn Error>> {
    let lines: Vec<_> = records.iter().map(attempts_per_second).collect();
    let points = lines.iter().flatten().map(|&(_, attempts)| attempts);
    let top = points.fold(scenario.capacity(), f64::max) * 1.1;
    let end = Scenario::END.as_secs_f64();
    let (begins, ends) = (
        Scenario::OUTAGE.start.as_secs_f64(),
        Scenario::OUTAGE.end.as_secs_f64(),
    );

    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    let outage = Rectangle::new([(begins, 0.0), (ends, top)], SHADE.filled());
    chart.draw_series([outage])?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.1))
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .x_desc("seconds")
        .y_desc("attempts per second")
        .x_label_formatter(&|seconds| format!("{seconds:.0}"))
        .y_label_formatter(&|attempts| format!("{attempts:.0}"))
        .draw()?;
    for ((contender, line), (color, width)) in contenders.iter().zip(lines).zip(LINES) {
        let style = color.stroke_width(width);
        chart
            .draw_series(LineSeries::new(line, style))?
            .label(contender.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], style));
    }
    let capacity = [(0.0, scenario.capacity()), (end, scenario.capacity())];
    chart
        .draw_series(DashedLineSeries::new(capacity, 6, 4, GREY.stroke_width(1)))?
        .label("capacity")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 24, y)], GREY));
    let name = Text::new("outage", (begins + 0.5, top * 0.98), ("sans-serif", 16));
    chart.draw_series([name])?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 16))
        .legend_area_size(32)
        .background_style(WHITE)
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present()?;
    drop((chart, area));
    Ok(svg)
}

/// The attempts in each second, at the middle of it.
fn attempts_per_second(record: &Record) -> Vec<(f64, f64)> {
    let second = record::index(Duration::from_secs(1));
    let seconds = record.slices.windows(second).enumerate();
    seconds
        .step_by(STEP)
        .map(|(index, slices)| {
            let attempts: u64 = slices.iter().map(|slice| slice.attempts).sum();
            let middle = record::start(index).as_secs_f64() + 0.5;
            (middle, attempts as f64)
        })
        .collect()
}
