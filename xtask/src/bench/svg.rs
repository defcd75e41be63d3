//! A picture of curves, as SVG: panels one below the other, each with the same ticks along x and a y that begins at 0.

const WIDTH: f64 = 860.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 190.0;
const TOP: f64 = 40.0;
const PANEL: f64 = 230.0;
const PLOT: f64 = 160.0;
/// Told apart by people who see few colours as well (Okabe and Ito).
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];
const LINES: u32 = 4;

/// Values, one a tick.
pub(crate) struct Series {
    pub(crate) name: &'static str,
    pub(crate) values: Vec<f64>,
}

/// What is drawn over one scale.
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    pub(crate) series: Vec<Series>,
}

/// The picture as a whole.
pub(crate) fn draw(title: &str, ticks: &[String], panels: &[Panel]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a picture has few panels")]
    let height = TOP + PANEL * panels.len() as f64;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    text += &label(LEFT, 22.0, "start", title);
    let mut top = TOP;
    for panel in panels {
        text += &draw_panel(panel, ticks, top + 30.0);
        top += PANEL;
    }
    text + "</svg>\n"
}

fn draw_panel(panel: &Panel, ticks: &[String], top: f64) -> String {
    let largest = panel.series.iter().flat_map(|it| &it.values).copied().fold(0.0, f64::max);
    let most = ceiling(largest);
    let y = |value: f64| top + PLOT * (1.0 - value / most);
    let x = |index: usize| place(index, ticks.len());
    let mut text = label(LEFT, top - 10.0, "start", panel.title);
    for line in 0..=LINES {
        let value = most * f64::from(line) / f64::from(LINES);
        let at = y(value);
        text += &format!(
            "<line x1=\"{LEFT}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#d0d0d0\"/>\n",
            WIDTH - RIGHT
        );
        text += &label(LEFT - 8.0, at + 4.0, "end", &tick(value));
    }
    for (index, tick) in ticks.iter().enumerate() {
        text += &label(x(index), top + PLOT + 18.0, "middle", tick);
    }
    for (index, series) in panel.series.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = series
            .values
            .iter()
            .enumerate()
            .map(|(at, value)| format!("{:.1},{:.1}", x(at), y(*value)))
            .collect();
        text += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
            points.join(" ")
        );
        #[expect(clippy::cast_precision_loss, reason = "a panel has few curves")]
        let row = top + 14.0 + 18.0 * index as f64;
        text += &format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"12\" height=\"3\" fill=\"{colour}\"/>\n",
            WIDTH - RIGHT + 14.0,
            row - 5.0
        );
        text += &label(WIDTH - RIGHT + 32.0, row, "start", series.name);
    }
    text
}

/// Where a tick stands: all of them evenly, as each is twice the one before.
fn place(index: usize, count: usize) -> f64 {
    let width = WIDTH - LEFT - RIGHT;
    #[expect(clippy::cast_precision_loss, reason = "a curve has few points")]
    let share = index as f64 / count.saturating_sub(1).max(1) as f64;
    LEFT + 20.0 + share * (width - 40.0)
}

/// The next of 1, 2, 4, 6, 8 and 10 times a power of ten.
fn ceiling(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    power * factors.into_iter().find(|factor| factor * power >= value).unwrap_or(10.0)
}

fn tick(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn label(x: f64, y: f64, anchor: &str, text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(values: &[f64]) -> Panel {
        Panel { title: "a < b", series: vec![Series { name: "one", values: values.to_vec() }] }
    }

    #[test]
    fn the_largest_value_is_inside_and_the_scale_begins_at_zero() {
        let ticks = ["1".to_owned(), "2".to_owned()];
        let text = draw_panel(&panel(&[0.0, 4.0]), &ticks, 0.0);
        // 0 is at the bottom of the plot, 4 of 4 at its top.
        assert!(text.contains(&format!("{:.1},{PLOT:.1} ", place(0, 2))), "{text}");
        assert!(text.contains(&format!(" {:.1},0.0\"", place(1, 2))), "{text}");
    }

    #[test]
    fn scales_are_round() {
        for (value, most) in
            [(0.0, 1.0), (0.3, 0.4), (1.0, 1.0), (6.5, 8.0), (9.1, 10.0), (8_601.0, 10_000.0)]
        {
            assert!((ceiling(value) - most).abs() < 1e-9, "{value}: {}", ceiling(value));
        }
        assert_eq!([0.5, 2.0, 1_500.0].map(tick), ["0.5", "2", "1500"]);
    }

    #[test]
    fn text_is_escaped_and_one_point_is_enough() {
        let text = draw("x & y", &["1".to_owned()], &[panel(&[3.0])]);
        assert!(text.contains("x &amp; y") && text.contains("a &lt; b"), "{text}");
        assert!(!text.contains("NaN") && text.ends_with("</svg>\n"));
    }
}
