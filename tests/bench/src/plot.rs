//! The plot: Envoy's CPU for each request, one panel for each number of connections, one group of bars for each answer.

use std::fmt::Write;

use crate::answers::Answer;
use crate::measure::{CONNECTIONS, Cell, Load, Sample};

const PANEL_WIDTH: f64 = 900.0;
const PANEL_HEIGHT: f64 = 240.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 64.0;
const GAP: f64 = 56.0;
/// Told apart by those who see no red or green, too.
const COLOURS: [&str; 8] = ["#999999", "#0072b2", "#56b4e9", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#000000"];

/// An SVG document.
#[must_use]
pub fn svg(cells: &[Cell]) -> String {
    let mut variants: Vec<&str> = Vec::new();
    for cell in cells {
        if !variants.contains(&cell.variant.as_str()) {
            variants.push(&cell.variant);
        }
    }
    let panels: Vec<usize> =
        CONNECTIONS.into_iter().filter(|count| cells.iter().any(|cell| cell.load.connections == *count)).collect();
    let width = LEFT + PANEL_WIDTH + 20.0;
    let height = TOP + panels.len() as f64 * (PANEL_HEIGHT + GAP);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"20\" font-size=\"15\">CPU time of Envoy for each request, in microseconds (less is better)</text>\n"
    );
    for (at, variant) in variants.iter().enumerate() {
        let x = LEFT + at as f64 * PANEL_WIDTH / variants.len() as f64;
        let _ = writeln!(
            text,
            "<rect x=\"{x:.0}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{:.0}\" y=\"43\">{variant}</text>",
            colour(at),
            x + 16.0,
        );
    }
    for (at, connections) in panels.into_iter().enumerate() {
        panel(&mut text, TOP + at as f64 * (PANEL_HEIGHT + GAP), connections, cells, &variants);
    }
    text.push_str("</svg>\n");
    text
}

fn panel(text: &mut String, top: f64, connections: usize, cells: &[Cell], variants: &[&str]) {
    let cpu = |cell: &Cell| Sample::median(&cell.samples).envoy_cpu_us;
    let here: Vec<&Cell> = cells.iter().filter(|cell| cell.load.connections == connections).collect();
    let greatest = round_up(here.iter().map(|cell| cpu(cell)).fold(1.0, f64::max));
    let bottom = top + PANEL_HEIGHT;
    let y = |value: f64| bottom - (PANEL_HEIGHT - 20.0) * value / greatest;
    let title = if connections == 1 { "1 connection".to_owned() } else { format!("{connections} connections") };
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{:.0}\" font-weight=\"bold\">{title}</text>", top + 10.0);
    for step in 0..=4 {
        let value = greatest * f64::from(step) / 4.0;
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {y:.1}h{PANEL_WIDTH}\" stroke=\"#ddd\"/>\
             <text x=\"{x:.0}\" y=\"{label:.1}\" text-anchor=\"end\">{value:.0}</text>",
            y = y(value),
            x = LEFT - 6.0,
            label = y(value) + 4.0,
        );
    }
    let answers: Vec<Answer> =
        Answer::all().into_iter().filter(|answer| here.iter().any(|cell| cell.load.answer == *answer)).collect();
    let group = PANEL_WIDTH / answers.len().max(1) as f64;
    let bar = group * 0.84 / variants.len().max(1) as f64;
    for (at, answer) in answers.into_iter().enumerate() {
        let left = LEFT + group * (at as f64 + 0.08);
        let load = Load { connections, answer };
        for (index, variant) in variants.iter().enumerate() {
            let Some(cell) = here.iter().find(|cell| cell.load == load && cell.variant == **variant) else { continue };
            let (value, x) = (cpu(cell), left + bar * index as f64);
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\">\
                 <title>{variant}, {}: {value:.1} µs</title></rect>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\" text-anchor=\"middle\">{value:.0}</text>",
                y(value),
                bar * 0.92,
                bottom - y(value),
                colour(index),
                load.name(),
                x + bar * 0.46,
                y(value) - 3.0,
            );
        }
        let name = answer.name().replace('_', " ");
        let (x, y) = (LEFT + group * (at as f64 + 0.5), bottom + 18.0);
        let _ = writeln!(text, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{name}</text>");
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#999999")
}

/// The next 1, 2 or 5 times a power of ten, in steps fine enough to fill the panel.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let steps = [1.0, 1.2, 1.6, 2.0, 2.4, 3.2, 4.0, 6.0, 8.0, 10.0];
    steps.into_iter().map(|step| step * power).find(|top| *top >= value).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::Kind;

    #[test]
    fn every_cell_has_a_bar_with_its_figure() {
        let sample = |envoy_cpu_us| Sample {
            requests: 1,
            requests_per_sec: 1.0,
            p50_us: 1.0,
            p99_us: 1.0,
            envoy_cpu_us,
            server_cpu_us: 0.0,
        };
        let cell = |variant: &str, connections, cpu| Cell {
            variant: variant.to_owned(),
            load: Load { connections, answer: Answer { bytes: 400, kind: Kind::Sse } },
            samples: vec![sample(cpu)],
        };
        let plot = svg(&[cell("router", 1, 80.0), cell("keyward", 1, 133.3), cell("router", 32, 41.0)]);
        assert!(plot.contains("<title>keyward, c1_400b_sse: 133.3 µs</title>"), "{plot}");
        assert_eq!(plot.matches("<title>").count(), 3);
        assert!(plot.starts_with("<svg") && plot.ends_with("</svg>\n"));
    }

    #[test]
    fn the_scale_is_just_above_the_greatest_bar() {
        for (value, top) in [(1.0, 1.0), (101.0, 120.0), (290.0, 320.0), (650.0, 800.0)] {
            assert!((round_up(value) - top).abs() < 1e-6, "{value}: {}", round_up(value));
        }
    }
}
