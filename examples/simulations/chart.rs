//! Pictures of figures over time, readable on light and dark pages.

use std::time::Duration;

/// The area of the lines in an image of 800 × 360.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 784.0;
const TOP: f64 = 84.0;
const BOTTOM: f64 = 310.0;

/// Readers with any colour vision can distinguish the colours (Okabe and Ito), on white and black.
const START: &str = r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 360">
<style>
text { font: 14px sans-serif; fill: #444 } .page { fill: #fff }
@media (prefers-color-scheme: dark) { text { fill: #ccc } .page { fill: #161b22 } }
path { fill: none; stroke-width: 2 } .grid { stroke: #8885; stroke-width: 1 }
.line0 { stroke: #888; stroke-dasharray: 6 4 }
.line1 { stroke: #009e73; stroke-width: 3 } .line2 { stroke: #3a8fd0 }
.line3 { stroke: #d55e00; stroke-width: 5 } .line4 { stroke: #e69f00 }
.line5 { stroke: #cc79a7; stroke-width: 4 } .line6 { stroke: #888 }
</style>
<rect class="page" width="800" height="360" rx="6"/>
"#;

pub struct Chart {
    /// The name of the axis and its ticks.
    pub x: (&'static str, &'static [u32]),
    pub y: (&'static str, &'static [u32]),

    /// The scale of the y axis.
    pub scale: fn(f64) -> f64,

    /// The first one is dashed.
    pub lines: Vec<Line>,
}

/// The name of a line and its points.
pub type Line = (&'static str, Vec<(f64, f64)>);

impl Chart {
    /// Draws the chart, as an SVG.
    pub fn draw(&self) -> String {
        let [right, top] = [self.x, self.y].map(|(_, ticks)| f64::from(ticks[ticks.len() - 1]));
        let x = |value: f64| LEFT + value / right * (RIGHT - LEFT);
        let y = |value: f64| BOTTOM - (self.scale)(value) / (self.scale)(top) * (BOTTOM - TOP);
        let mut parts = vec![
            text(LEFT, 72.0, "start", self.y.0),
            text((LEFT + RIGHT) / 2.0, 350.0, "middle", self.x.0),
        ];
        for tick in self.x.1 {
            let (x, label) = (x(f64::from(*tick)), tick.to_string());
            parts.push(text(x, BOTTOM + 20.0, "middle", &label));
        }
        for tick in self.y.1 {
            let y = y(f64::from(*tick));
            parts.push(path("grid", &format!("M{LEFT} {y:.1}H{RIGHT}")));
            parts.push(text(LEFT - 8.0, y + 5.0, "end", &tick.to_string()));
        }
        // The line of the first policy covers the others.
        for (number, (name, points)) in self.lines.iter().enumerate().rev() {
            let points = points.iter();
            let points = points.map(|&(time, value)| format!("{:.1} {:.1}", x(time), y(value)));
            let points: Vec<_> = points.collect();
            let class = format!("line{number}");
            parts.push(path(&class, &format!("M{}", points.join("L"))));
            let (left, row) = (LEFT + 180.0 * (number % 4) as f64, 20 * (number / 4) + 20);
            parts.push(path(&class, &format!("M{left} {row}h24")));
            parts.push(text(left + 32.0, row as f64 + 5.0, "start", name));
        }
        format!("{START}{}\n</svg>\n", parts.join("\n"))
    }
}

fn text(x: f64, y: f64, anchor: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#)
}

fn path(class: &str, commands: &str) -> String {
    format!(r#"<path class="{class}" d="{commands}"/>"#)
}

/// The times that are in each second, at the middle of it.
pub fn per_second(times: impl Iterator<Item = Duration>, seconds: u64) -> Vec<(f64, f64)> {
    let mut counts = vec![0.0; seconds as usize];
    for time in times.filter(|time| time.as_secs() < seconds) {
        counts[time.as_secs() as usize] += 1.0;
    }
    let middles = (0..seconds).map(|second| second as f64 + 0.5);
    middles.zip(counts).collect()
}
