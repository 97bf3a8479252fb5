//! The pictures: SVG, by the number of workers.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

/// One line in each picture: workers, the middle gap in µs, commands sent a section.
pub(crate) struct Curve {
    /// Whose it is.
    pub(crate) name: &'static str,
    /// From few workers to many.
    pub(crate) points: Vec<(u32, f64, f64)>,
}

/// Beside `BENCHMARKS.md`.
pub(crate) const FILES: [&str; 2] = ["hand-over.svg", "commands.svg"];

/// Told apart by those, too, who see no red or no green (after Okabe and Ito).
const COLOURS: [RGBColor; 8] = [
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
    RGBColor(150, 110, 60),
];

/// Draws both.
pub(crate) fn draw(folder: &Path, curves: &[Curve]) -> Result<()> {
    let what = [
        "from a release to the next that holds, µs (median)",
        "commands sent by clients for each section",
    ];
    let titles = ["Hand-over under contention", "Commands under contention"];
    for at in 0..FILES.len() {
        let lines: Vec<(&str, Vec<(f64, f64)>)> = curves
            .iter()
            .map(|curve| {
                let value = |point: &(u32, f64, f64)| if at == 0 { point.1 } else { point.2 };
                let points = curve.points.iter().filter(|point| point.0 > 1);
                (
                    curve.name,
                    points
                        .map(|point| (f64::from(point.0), value(point).max(0.1)))
                        .collect(),
                )
            })
            .collect();
        picture(&folder.join(FILES[at]), titles[at], what[at], &lines)?;
    }
    Ok(())
}

fn picture(file: &Path, title: &str, what: &str, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<()> {
    let values = || lines.iter().flat_map(|(_, points)| points);
    let top = values().map(|point| point.1).fold(1.0, f64::max) * 1.5;
    let bottom = values().map(|point| point.1).fold(top, f64::min) / 1.5;
    let right = values().map(|point| point.0).fold(2.0, f64::max);
    let area = SVGBackend::new(file, (880, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, legend) = area.split_horizontally(690);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
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
        .y_desc(what)
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
