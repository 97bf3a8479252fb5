//! The pictures: SVG, by the number of workers.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

/// What was found of one contestant, for each number of workers.
pub(crate) struct Curve {
    /// Whose it is.
    pub(crate) name: &'static str,
    /// From few workers to many.
    pub(crate) points: Vec<Point>,
}

/// At one number of workers.
pub(crate) struct Point {
    /// So many.
    pub(crate) workers: u32,
    /// The middle gap from a release to the next that holds, in µs.
    pub(crate) gap: f64,
    /// Commands that the clients sent for each section.
    pub(crate) sent: f64,
    /// Jain's index of fairness.
    pub(crate) jain: f64,
}

/// One of the pictures.
struct Picture {
    file: &'static str,
    title: &'static str,
    what: &'static str,
    of: fn(&Point) -> f64,
}

const PICTURES: [Picture; 3] = [
    Picture {
        file: "hand-over.svg",
        title: "Hand-over under contention",
        what: "from a release to the next that holds, µs (median)",
        of: |point| point.gap,
    },
    Picture {
        file: "commands.svg",
        title: "Commands under contention",
        what: "commands sent by clients for each section",
        of: |point| point.sent,
    },
    Picture {
        file: "fairness.svg",
        title: "Fairness under contention",
        what: "Jain's index (1: all had the same number of turns)",
        of: |point| point.jain,
    },
];

/// Beside `BENCHMARKS.md`.
pub(crate) fn files() -> impl Iterator<Item = &'static str> {
    PICTURES.iter().map(|picture| picture.file)
}

/// Distinct also for readers who see no red or no green (after Okabe and Ito).
const COLOURS: [RGBColor; 10] = [
    RGBColor(213, 30, 0),
    RGBColor(0, 90, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(150, 110, 60),
    RGBColor(130, 80, 220),
    RGBColor(160, 190, 20),
];

/// Draws all of them.
pub(crate) fn draw(folder: &Path, curves: &[Curve]) -> Result<()> {
    for picture in &PICTURES {
        let points = |curve: &Curve| -> Vec<(f64, f64)> {
            let at = |point: &Point| (f64::from(point.workers), (picture.of)(point));
            curve.points.iter().map(at).collect()
        };
        let lines: Vec<_> = curves
            .iter()
            .filter(|curve| !curve.points.is_empty())
            .map(|curve| (curve.name, points(curve)))
            .collect();
        draw_one(&folder.join(picture.file), picture, &lines)?;
    }
    Ok(())
}

fn draw_one(file: &Path, picture: &Picture, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<()> {
    let values = || lines.iter().flat_map(|(_, points)| points);
    let top = values().map(|point| point.1).fold(0.0, f64::max) * 1.5;
    let bottom = values().map(|point| point.1).fold(top, f64::min) / 1.5;
    let right = values().map(|point| point.0).fold(2.0, f64::max);
    let area = SVGBackend::new(file, (880, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, legend) = area.split_horizontally(690);
    let mut chart = ChartBuilder::on(&area)
        .caption(picture.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (1.8..right * 1.1).log_scale().base(2.0),
            (bottom..top).log_scale(),
        )?;
    chart
        .configure_mesh()
        .x_desc("workers that want the lock, all in one process")
        .y_desc(picture.what)
        .x_label_formatter(&|workers| format!("{workers:.0}"))
        .y_label_formatter(&|value| crate::figures::short(*value))
        .axis_desc_style(("sans-serif", 15))
        .label_style(("sans-serif", 13))
        .light_line_style(RGBColor(240, 240, 240))
        .draw()?;
    for (at, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let width = if at == 0 { 4 } else { 2 };
        chart.draw_series(LineSeries::new(
            points.iter().copied(),
            colour.stroke_width(width),
        ))?;
        chart.draw_series(
            points
                .iter()
                .map(|point| Circle::new(*point, width + 1, colour.filled())),
        )?;
        let y = 50 + 24 * i32::try_from(at)?;
        legend.draw(&PathElement::new(
            [(4, y), (30, y)],
            colour.stroke_width(width),
        ))?;
        legend.draw(&Circle::new((17, y), width + 1, colour.filled()))?;
        legend.draw(&Text::new(*name, (38, y - 8), ("sans-serif", 15)))?;
    }
    legend.present()?;
    area.present()?;
    Ok(())
}
