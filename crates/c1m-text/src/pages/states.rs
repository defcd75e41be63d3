//! Sockets by state: sums, then ports.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use c1m_record::{StateRow, States, TcpState};

use crate::{
    page::{Page, Side, Table, Text, Tone},
    pages::unseen,
    units::{counted, grouped, span_ms},
};

/// Network namespaces with a column of their own.
const NAMESPACES: usize = 3;

type Counts = BTreeMap<TcpState, u64>;

/// Sums by state and network namespace, then the ports with a listener, at most `top` of them. Other local ports are those of clients, and have one row.
#[must_use]
pub fn states(states: &States, top: usize) -> Page {
    let namespaces = by_namespace(&states.rows);
    let mut page = Page::default();
    let sockets = states.rows.iter().map(|row| row.count).sum();
    let place = match namespaces.as_slice() {
        [(inode, _)] => format!("network namespace {inode}"),
        all => counted(all.len() as u64, "network namespace"),
    };
    let sum = format!("{} in {place}", counted(sockets, "TCP socket"));
    page.line(Text::new(&sum, Tone::Strong));
    page.line(format!("counted by {} in {}", states.source.name(), span_ms(states.took_ms)));
    if sockets > 0 {
        page.section("By state");
        page.table(sums(&namespaces));
        page.section("By local port");
        let (table, further) = ports(&states.rows, namespaces.len(), top);
        page.table(table);
        if let Some(further) = further {
            page.line(&further);
        }
    }
    unseen(&mut page, &states.unseen);
    page
}

fn total(counts: &Counts) -> u64 {
    counts.values().sum()
}

fn add(sum: &mut Counts, row: &StateRow) {
    *sum.entry(row.state).or_default() += row.count;
}

/// Those with the most sockets first.
fn by_namespace(rows: &[StateRow]) -> Vec<(u32, Counts)> {
    let mut namespaces: BTreeMap<u32, Counts> = BTreeMap::new();
    rows.iter().for_each(|row| add(namespaces.entry(row.netns).or_default(), row));
    let mut namespaces: Vec<_> = namespaces.into_iter().collect();
    namespaces.sort_by_key(|(_, counts)| Reverse(total(counts)));
    namespaces
}

/// A row for each state. Namespaces beyond the first few share a column.
fn sums(namespaces: &[(u32, Counts)]) -> Table {
    let own = if namespaces.len() <= NAMESPACES + 1 { namespaces.len() } else { NAMESPACES };
    let own = if own == 1 { 0 } else { own };
    let rest = namespaces.get(own..).filter(|_| own > 0).unwrap_or_default();
    let mut names = vec!["state".to_owned(), "sockets".into()];
    names.extend(namespaces.iter().take(own).map(|(inode, _)| format!("netns {inode}")));
    names.extend((!rest.is_empty()).then(|| format!("{} others", grouped(rest.len() as u64))));
    let columns: Vec<(&str, Side)> =
        names.iter().map(|name| (name.as_str(), Side::Right)).collect();
    let columns = [&[("state", Side::Left)], &columns[1..]].concat();
    let mut table = Table::new(&columns);
    let mut row = |name: &str, tone: Tone, count: &dyn Fn(&Counts) -> u64| {
        let sum =
            |some: &[(u32, Counts)]| some.iter().map(|(_, counts)| count(counts)).sum::<u64>();
        let mut cells = vec![Text::new(name, tone), Text::new(&grouped(sum(namespaces)), tone)];
        cells.extend(namespaces.iter().take(own).map(|(_, counts)| grouped(count(counts)).into()));
        cells.extend((!rest.is_empty()).then(|| grouped(sum(rest)).into()));
        table.row(cells);
    };
    let states: BTreeSet<TcpState> =
        namespaces.iter().flat_map(|(_, counts)| counts.keys().copied()).collect();
    for state in states {
        row(state.name(), tone(state), &|counts| counts.get(&state).copied().unwrap_or(0));
    }
    row("all", Tone::Strong, &total);
    table
}

/// A program that does not close leaves these behind.
fn tone(state: TcpState) -> Tone {
    match state {
        TcpState::CloseWait | TcpState::ClosedButOpen => Tone::Warning,
        _ => Tone::Plain,
    }
}

/// Ports with a listener, those with the most sockets first, then one row for all others. Also what `top` leaves out, in words.
fn ports(rows: &[StateRow], namespaces: usize, top: usize) -> (Table, Option<String>) {
    let has_listener: BTreeSet<(u32, u16)> = rows
        .iter()
        .filter(|row| row.state == TcpState::Listen)
        .map(|row| (row.netns, row.port))
        .collect();
    let mut listened: BTreeMap<(u32, u16), Counts> = BTreeMap::new();
    let (mut others, mut other_ports, mut without) =
        (Counts::new(), BTreeSet::new(), Counts::new());
    for row in rows {
        let place = (row.netns, row.port);
        if has_listener.contains(&place) {
            add(listened.entry(place).or_default(), row);
        } else if row.port == 0 {
            add(&mut without, row);
        } else {
            add(&mut others, row);
            other_ports.insert(place);
        }
    }
    let mut listened: Vec<_> = listened.into_iter().collect();
    listened.sort_by_key(|(_, counts)| Reverse(total(counts)));
    let has_namespaces = namespaces > 1;
    let mut columns = vec![("port", Side::Left), ("netns", Side::Left), ("sockets", Side::Right)];
    columns.push(("states", Side::Left));
    columns.retain(|(name, _)| has_namespaces || *name != "netns");
    let mut table = Table::new(&columns);
    let mut row = |port: &str, netns: &str, counts: &Counts, before: &str| {
        let netns = has_namespaces.then(|| netns.into());
        let cells = [grouped(total(counts)).into(), (before.to_owned() + &list(counts)).into()];
        table.row([port.into()].into_iter().chain(netns).chain(cells));
    };
    for ((netns, port), counts) in listened.iter().take(top) {
        row(&port.to_string(), &netns.to_string(), counts, "");
    }
    if !others.is_empty() {
        let count = counted(other_ports.len() as u64, "port");
        let before = format!("{count} without a listener: ");
        row("ephemeral", "all", &others, &before);
    }
    if !without.is_empty() {
        row("none yet", "all", &without, "");
    }
    let omitted = listened.get(top..).filter(|omitted| !omitted.is_empty());
    let further = omitted.map(|omitted| {
        let sockets = omitted.iter().map(|(_, counts)| total(counts)).sum();
        let ports = counted(omitted.len() as u64, "further port");
        format!("{ports} with {}: --top or --json has more", counted(sockets, "socket"))
    });
    (table, further)
}

/// `established 1,000, listen 2`
pub(super) fn list(counts: &Counts) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(**count));
    let texts =
        counts.iter().map(|(state, count)| format!("{} {}", state.name(), grouped(**count)));
    texts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use c1m_record::Source;

    use super::*;
    use crate::page::Format;

    fn row(state: TcpState, port: u16, netns: u32, count: u64) -> StateRow {
        StateRow { state, port, netns, count }
    }

    fn record(rows: Vec<StateRow>) -> States {
        States { source: Source::Iterators, rows, unseen: Vec::new(), took_ms: 1234.0 }
    }

    #[test]
    fn sums_come_first_and_ports_of_clients_in_one_row() {
        use TcpState::{CloseWait, Established, Listen, TimeWait, Unconnected};
        let mut rows = vec![
            row(Listen, 8000, 1, 2),
            row(Established, 8000, 1, 20_000),
            row(CloseWait, 8000, 1, 3),
            row(Listen, 22, 1, 1),
            row(TimeWait, 40_000, 1, 7),
            row(Unconnected, 0, 1, 4),
        ];
        rows.extend((30_000..32_000).map(|port| row(Established, port, 1, 10)));
        let drawn = states(&record(rows.clone()), 40).render(Format::default());
        assert_eq!(
            drawn,
            "40,017 TCP sockets in network namespace 1\n\
             counted by eBPF iterators in 1.23 s\n\
             \n\
             By state\n\
             state        sockets\n\
             established   40,000\n\
             time_wait          7\n\
             close_wait         3\n\
             listen             3\n\
             unconnected        4\n\
             all           40,017\n\
             \n\
             By local port\n\
             port       sockets  states\n\
             8000        20,005  established 20,000, close_wait 3, listen 2\n\
             22               1  listen 1\n\
             ephemeral   20,007  2,001 ports without a listener: established 20,000, time_wait 7\n\
             none yet         4  unconnected 4\n"
        );
        let short = states(&record(rows), 1).render(Format { width: Some(60), color: false });
        assert!(
            short.contains("1 further port with 1 socket: --top or --json has more"),
            "{short}"
        );
        assert!(!short.contains("\n22 ") && short.contains("ephemeral"), "{short}");
    }

    #[test]
    fn a_listener_counts_in_its_own_network_namespace() {
        let rows = (1..=5).flat_map(|netns| {
            let port = if netns == 1 { 80 } else { 81 };
            [
                row(TcpState::Listen, port, netns, 1),
                row(TcpState::Established, 80, netns, netns.into()),
            ]
        });
        let drawn = states(&record(rows.collect()), 40).render(Format::default());
        for line in [
            "20 TCP sockets in 5 network namespaces",
            "state        sockets  netns 5  netns 4  netns 3  2 others",
            "established       15        5        4        3         3",
            "80         1            2  established 1, listen 1",
            "ephemeral  all         14  4 ports without a listener: established 14",
        ] {
            assert!(drawn.contains(line), "{line} in\n{drawn}");
        }
    }

    #[test]
    fn what_was_not_seen_is_said_and_escaped() {
        let states = States { unseen: vec!["no\u{1b}thing".into()], ..record(Vec::new()) };
        let drawn = super::states(&states, 1).render(Format::default());
        assert!(
            drawn.starts_with("0 TCP sockets") && drawn.ends_with("  no\\u{1b}thing\n"),
            "{drawn}"
        );
    }
}
