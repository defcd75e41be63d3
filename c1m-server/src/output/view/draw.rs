//! The picture. What a terminal has no room for is left out, the least important first: holders, rates, charts, events, limits. Connections and the
//! usage of tcp_mem have a line of their own where the charts do not show them.

use std::collections::VecDeque;

use c1m_record::{Confidence, HostUsage, Verdict};
use c1m_text::{
    escape,
    units::{grouped, known, span_ms},
};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Paragraph, Sparkline, SparklineBar, Table},
};

use super::View;

/// A pane with less is not worth its frame.
const PANE_MIN: u16 = 4;
const CHARTS: u16 = 7;
const HOLDERS: u16 = 8;
/// Columns of the limits, the least important last: limit, full, of, time to it, headroom, used, of.
const COLUMNS: [u16; 7] = [16, 5, 8, 12, 26, 14, 20];
/// Two panes stand beside each other from here on.
const WIDE: u16 = 72;

/// Draws the state, and changes nothing.
pub fn draw(view: &View, frame: &mut Frame<'_>) {
    let area = frame.area();
    let rows = view.rows();
    let heights = Heights::of(area.height, rows.len(), view.holders.is_some());
    let [title, now, charts, limits, holders, events, verdict, keys] = Layout::vertical([
        Constraint::Length(heights.title),
        Constraint::Length(heights.now),
        Constraint::Length(heights.charts),
        Constraint::Length(heights.limits),
        Constraint::Length(heights.holders),
        Constraint::Length(heights.events),
        Constraint::Length(heights.verdict),
        Constraint::Length(heights.keys),
    ])
    .areas(area);
    frame.render_widget(Line::from(escape::line(&title_line(view))).style(Modifier::BOLD), title);
    frame.render_widget(Line::from(now_line(view)), now);
    if charts.height > 0 {
        draw_charts(view, frame, charts);
    }
    if limits.height > 0 {
        draw_limits(view, frame, limits);
    }
    if holders.height > 0 {
        draw_holders(view, frame, holders);
    }
    if events.height > 0 {
        draw_events(view, frame, events);
    }
    let (text, style) = verdict_line(view.verdict.as_ref());
    frame.render_widget(Line::from(escape::line(&text)).style(style), verdict);
    frame.render_widget(Line::from(keys_line(view)).style(Modifier::DIM), keys);
}

/// Lines of each pane; together as many as there are.
#[derive(Debug, PartialEq, Eq)]
struct Heights {
    title: u16,
    now: u16,
    charts: u16,
    limits: u16,
    holders: u16,
    events: u16,
    verdict: u16,
    keys: u16,
}

impl Heights {
    fn of(lines: u16, limits: usize, has_holders: bool) -> Self {
        let mut left = lines;
        let mut take = |wanted: u16, least: u16| {
            let given = if left >= least { wanted.min(left) } else { 0 };
            left -= given;
            given
        };
        // In the order of what is wanted most.
        let (verdict, title, now, keys) = (take(1, 1), take(1, 1), take(1, 1), take(1, 1));
        // Frame and header.
        let wanted = u16::try_from(limits).unwrap_or(u16::MAX).saturating_add(3).max(PANE_MIN);
        let half = lines / 2;
        let mut limits = take(wanted.min(half.max(PANE_MIN)), PANE_MIN);
        let charts = take(CHARTS, CHARTS);
        let holders = if has_holders { take(HOLDERS, HOLDERS + PANE_MIN) } else { 0 };
        let events = take(u16::MAX, PANE_MIN);
        if limits > 0 {
            // Too little for events is not too little for this.
            limits += take(u16::MAX, 0);
        }
        Self { title, now, charts, limits, holders, events, verdict, keys }
    }
}

fn title_line(view: &View) -> String {
    let mut line = "c1m watch".to_owned();
    if let Some(watching) = &view.watching {
        let ports: Vec<String> = watching.ports.iter().map(u16::to_string).collect();
        line += &match ports.is_empty() {
            true => "  ports all".into(),
            false => format!("  ports {}", ports.join(",")),
        };
        if let (Some(pid), comm) = (watching.pid, &watching.comm) {
            line += &format!("  {} ({pid})", comm.as_deref().unwrap_or("unknown"));
        }
        if let Some(cgroup) = &watching.cgroup {
            line += &format!("  cgroup {cgroup}");
        }
        if let Some(netns) = watching.netns {
            line += &format!("  netns {netns}");
        }
    }
    if !view.kernel.is_empty() {
        line += &format!("  Linux {}", view.kernel);
    }
    if let Some(usage) = &view.usage {
        let cost = usage.own_cpu_percent.map_or("unknown".into(), |cost| format!("{cost:.1} %"));
        line += &format!("  own cpu {cost}  dropped {}", grouped(usage.dropped));
    }
    line
}

/// What is asked for first, on a terminal of any size.
fn now_line(view: &View) -> String {
    let Some(usage) = &view.usage else { return "no sample yet".into() };
    let HostUsage { tcp_mem_pages, tcp_mem, .. } = usage.host;
    let pages = tcp_mem_pages.map_or("unknown".into(), |pages| view.memory(pages));
    let mut line = format!("{} connections  {pages} tcp_mem", known(usage.watched.connections));
    if let (Some(pages), Some([.., high])) = (tcp_mem_pages, tcp_mem) {
        let percent = u128::from(pages) * 100 / u128::from(high.max(1));
        line += &format!(" ({percent}% of high)");
    }
    line
}

fn draw_charts(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let (left, right) = if area.width >= WIDE {
        let [left, right] =
            Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]).areas(area);
        (left, Some(right))
    } else {
        (area, None)
    };
    let block = Block::new().borders(Borders::ALL).title("tcp_mem (host)");
    let inside = block.inner(left);
    frame.render_widget(block, left);
    let [text, chart] =
        Layout::vertical([Constraint::Length(2), Constraint::Fill(1)]).areas(inside);
    frame.render_widget(Paragraph::new(memory_lines(view)), text);
    let limits = view.usage.as_ref().and_then(|usage| usage.host.tcp_mem);
    let columns = across(&view.pages, chart.width);
    let most = columns.iter().copied().max().unwrap_or(0);
    let bars = columns
        .iter()
        .map(|pages| SparklineBar::from(*pages).style(limits.map(|limits| zone(*pages, limits))));
    let mut sparkline = Sparkline::default().data(bars);
    // The top of the chart is high, unless usage went past it.
    if let Some([.., high]) = limits {
        sparkline = sparkline.max(most.max(high).max(1));
    }
    frame.render_widget(sparkline, chart);
    if let Some(right) = right {
        draw_rates(view, frame, right);
    }
}

/// The colour of usage that is past low, pressure or high.
fn zone(pages: u64, [low, pressure, high]: [u64; 3]) -> Style {
    Style::new().fg(match pages {
        pages if pages > high => Color::Red,
        pages if pages > pressure => Color::Magenta,
        pages if pages > low => Color::Yellow,
        _ => Color::Green,
    })
}

fn memory_lines(view: &View) -> Vec<Line<'static>> {
    let Some(usage) = &view.usage else { return Vec::new() };
    let HostUsage { tcp_mem, pressure, .. } = usage.host;
    let limits = tcp_mem.map_or("limits unknown from here".into(), |limits| {
        let [low, pressure, high] = limits.map(|pages| view.memory(pages));
        format!("low {low}, pressure {pressure}, high {high}")
    });
    let span = |ms: Option<f64>| ms.map_or("unknown".into(), span_ms);
    let now = match pressure.now {
        Some(true) => Span::styled(
            format!("under pressure for {}", span(pressure.lasting_ms)),
            Style::new().fg(Color::Red),
        ),
        Some(false) => Span::raw("no pressure"),
        None => Span::raw("pressure unknown from here"),
    };
    vec![
        Line::from(limits),
        Line::from(vec![now, Span::raw(format!(", {} in all", span(pressure.total_ms)))]),
    ]
}

fn draw_rates(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let block = Block::new().borders(Borders::ALL).title("connections (watched)");
    let inside = block.inner(area);
    frame.render_widget(block, area);
    let [text, opened, closed] =
        Layout::vertical([Constraint::Length(3), Constraint::Fill(1), Constraint::Fill(1)])
            .areas(inside);
    let watched = view.usage.as_ref().map(|usage| usage.watched).unwrap_or_default();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate for people"
    )]
    let rate = |rate: Option<f64>| {
        rate.map_or("unknown".into(), |rate| format!("{}/s", grouped(rate.max(0.0).round() as u64)))
    };
    let lines = [
        format!("now {}", known(watched.connections)),
        format!("new {} ({})", rate(watched.opened_per_s), known(watched.opened)),
        format!("closed {} ({})", rate(watched.closed_per_s), known(watched.closed)),
    ];
    frame.render_widget(Paragraph::new(lines.map(Line::from).to_vec()), text);
    for (past, area) in [(&view.opened, opened), (&view.closed, closed)] {
        frame.render_widget(Sparkline::default().data(across(past, area.width)), area);
    }
}

/// One value per column: the newest, or all of them spread over the whole width while there are fewer.
fn across(past: &VecDeque<u64>, columns: u16) -> Vec<u64> {
    let columns = usize::from(columns);
    let first = past.len().saturating_sub(columns);
    let kept = past.len() - first;
    let at = |column: usize| if kept == columns { column } else { column * kept / columns };
    (0..columns).filter_map(|column| past.get(first + at(column)).copied()).collect()
}

fn draw_limits(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let next = match view.usage.as_ref().and_then(|usage| usage.next.as_ref()) {
        Some(next) => {
            let time = next.in_s.map_or(String::new(), |seconds| format!(" in {seconds:.0}s"));
            format!("{}{time}", next.limit.name())
        }
        None => "none in sight".into(),
    };
    let mut title = format!("limits by {}, next: {next}", view.sort.name());
    if !view.filter.is_empty() {
        title += &format!(", only /{}", view.filter);
    }
    let columns = columns_within(area.width.saturating_sub(2));
    let rows = view.rows().into_iter().map(|row| {
        let style = match row.percent {
            Some(90..) => Style::new().fg(Color::Red),
            Some(50..) => Style::new().fg(Color::Yellow),
            _ => Style::new(),
        };
        let percent = row.percent.map_or("?".into(), |percent| format!("{percent}%"));
        let cells = [
            row.name.to_owned(),
            percent,
            row.scope.to_owned(),
            row.time,
            row.headroom,
            row.used,
            row.ceiling,
        ];
        ratatui::widgets::Row::new(cells.into_iter().take(columns)).style(style)
    });
    let header = ["limit", "full", "of", "time to it", "headroom", "used", "of"];
    let table = Table::new(rows, COLUMNS.into_iter().take(columns).map(Constraint::Length))
        .header(ratatui::widgets::Row::new(header.into_iter().take(columns)).style(Modifier::BOLD))
        .block(Block::new().borders(Borders::ALL).title(title));
    frame.render_widget(table, area);
}

/// How many whole ones have room, with a space between two.
fn columns_within(width: u16) -> usize {
    let ends = COLUMNS.iter().scan(0, |end, column| {
        *end += column + 1;
        Some(*end - 1)
    });
    ends.take_while(|end| *end <= width).count().max(1)
}

fn draw_holders(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let title = view
        .holders
        .as_ref()
        .map_or(String::new(), |holders| escape::line(&holders.title).into_owned());
    let widths = [Constraint::Fill(1)].into_iter().chain([Constraint::Length(14); 3]);
    let rows = view.holder_rows().into_iter().map(ratatui::widgets::Row::new);
    let header = ["holder", "sockets", "receive", "send"];
    let table = Table::new(rows, widths)
        .header(ratatui::widgets::Row::new(header).style(Modifier::BOLD))
        .block(Block::new().borders(Borders::ALL).title(title));
    frame.render_widget(table, area);
}

fn draw_events(view: &View, frame: &mut Frame<'_>, area: Rect) {
    let title = match view.scrolled {
        0 => "events".into(),
        lines => format!("events, {lines} newer below"),
    };
    let block = Block::new().borders(Borders::ALL).title(title);
    let inside = block.inner(area);
    // The newest at the bottom.
    let mut shown: Vec<Line<'_>> = view
        .events
        .iter()
        .rev()
        .filter(|line| view.passes(line))
        .skip(view.scrolled)
        .take(inside.height.into())
        .map(|line| Line::from(line.as_str()))
        .collect();
    shown.reverse();
    frame.render_widget(block, area);
    frame.render_widget(Paragraph::new(shown), inside);
}

fn verdict_line(verdict: Option<&Verdict>) -> (String, Style) {
    match verdict.and_then(|verdict| verdict.causes.first()) {
        Some(cause) => {
            let (confidence, style) = match cause.confidence {
                Confidence::Certain => {
                    ("certain", Style::new().fg(Color::Red).add_modifier(Modifier::BOLD))
                }
                Confidence::Likely => ("likely", Style::new().fg(Color::Red)),
                Confidence::Possible => ("possible", Style::new().fg(Color::Yellow)),
            };
            let (limit, scope) = (cause.limit.name(), cause.scope.name());
            (format!("verdict: {limit} ({confidence}, {scope}): {}", cause.text), style)
        }
        None => ("verdict: no limit was hit".into(), Style::new().fg(Color::Green)),
    }
}

fn keys_line(view: &View) -> String {
    if view.is_typing {
        return format!("/{}_  (enter keeps it, esc clears it)", view.filter);
    }
    "q end  s sort  / filter  up/down events".into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_given_twice_and_the_verdict_goes_last() {
        for lines in 0..100 {
            for (limits, has_holders) in [(0, false), (5, true), (17, false), (17, true)] {
                let given = Heights::of(lines, limits, has_holders);
                let Heights { title, now, charts, limits, holders, events, verdict, keys } = given;
                let sum = title + now + charts + limits + holders + events + verdict + keys;
                assert!(sum <= lines, "{given:?} of {lines}");
                assert_eq!(verdict, lines.min(1));
            }
        }
    }

    #[test]
    fn a_chart_is_as_wide_as_its_panel() {
        let few: VecDeque<u64> = [1, 2, 3].into();
        assert_eq!(across(&few, 7), [1, 1, 1, 2, 2, 3, 3]);
        assert_eq!(across(&few, 2), [2, 3]);
        for samples in 1..100 {
            let past: VecDeque<u64> = (0..samples).collect();
            for columns in [1, 40, 99, 100, 512] {
                let drawn = across(&past, columns);
                assert_eq!(drawn.len(), usize::from(columns), "{samples} samples");
                assert_eq!(drawn.last(), past.back(), "the newest is on the right");
            }
        }
        assert!(across(&VecDeque::new(), 9).is_empty());
    }

    #[test]
    fn a_column_is_whole_or_not_there() {
        assert_eq!((columns_within(0), columns_within(16), columns_within(21)), (1, 1, 1));
        assert_eq!((columns_within(22), columns_within(31), columns_within(500)), (2, 3, 7));
    }
}
