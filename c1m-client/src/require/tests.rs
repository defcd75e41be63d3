use proptest::prelude::*;

use super::*;
use crate::{
    record::{Latency, Sample, Summary},
    summary::{AllTimes, Times},
};

fn require(text: &str) -> Requirement {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refusal(text: &str) -> String {
    text.parse::<Requirement>().unwrap_err()
}

fn result() -> Summary {
    let mut result = crate::merge::tests::summary(1000);
    result.connected = 999;
    result.held_at_end = 998;
    result.failed = 1;
    result.errors = [("connect timeout".into(), 1), ("reset by peer".into(), 2)].into();
    result.ramp_s = Some(1.5);
    let latency_us = Latency::default();
    result.rate_per_s = Some(9_900.5);
    result.plan.asked.rate_per_s = Some(10_000);
    result.sample =
        Some(Sample { asked: 3, answered: 2, wrong: 1, missed: 0, took_s: 0.25, latency_us });
    result
}

fn judge(text: &str) -> Judged {
    let mut connect = Times::default();
    (1..=1000).for_each(|us| connect.record(us));
    let times = AllTimes { connect, ..AllTimes::default() };
    require(text).judge(&Measured { result: &result(), times: &times })
}

#[test]
fn counts_shares_and_times_are_judged() {
    for (text, held) in [
        ("connected==999", true),
        ("connected == 1k", false),
        ("connected>=99.9%", true),
        ("connected>99.9%", false),
        ("connected==99.9%", true),
        ("connected<99.900000001%", true),
        ("held_at_end!=998", false),
        ("failed<=0.1%", true),
        ("failed<0.1%", false),
        ("errors==3", true),
        ("rate>=9900", true),
        ("rate==9900", false),
        ("rate>=9901", false),
        ("rate>=99%", true),
        ("rate>=99.01%", false),
        ("sample_answered>=66.6%", true),
        ("sample_answered>=66.7%", false),
        ("sample_wrong==1", true),
        ("sample_wrong<33%", false),
        ("sample_missed<=0%", true),
        ("sample_took<=250ms", true),
        ("sample_took<0.25s", false),
        ("ramp==1500000us", true),
        ("ramp>1499999999ns", true),
        ("connect_p50==500us", true),
        ("connect_p99<=0.99ms", true),
        ("connect_p99<990µs", false),
        ("connect_max<1ms", false),
        ("connect_max<=1ms", true),
        ("elapsed >= 0s", true),
    ] {
        let judged = judge(text);
        assert_eq!((judged.held, judged.unknown.clone()), (held, None), "{judged:?}");
        assert_eq!(judged.require, text);
    }
}

#[test]
fn the_value_is_told_in_the_unit_of_the_threshold() {
    let judged = judge("connect_p50<0.75ms");
    assert_eq!((judged.unit, judged.actual, judged.threshold), (Unit::Ms, Some(0.5), 0.75));
    assert_eq!((judged.metric.as_str(), judged.operator.as_str()), ("connect_p50", "<"));
    let judged = judge("connected>=99.95%");
    assert_eq!((judged.unit, judged.actual, judged.threshold), (Unit::Percent, Some(99.9), 99.95));
}

#[test]
fn what_is_unknown_is_not_held_whatever_is_asked() {
    for (text, why) in [
        ("first_byte_p99<1s", "no first byte"),
        ("first_byte_p99!=1s", "no first byte"),
        ("heartbeat_p99>=0ns", "--heartbeat"),
        ("heartbeat_missed==0", "--heartbeat"),
        ("sample_p50<1s", "--sample"),
    ] {
        let judged = judge(text);
        assert!(!judged.held && judged.actual.is_none(), "{judged:?}");
        assert!(judged.unknown.unwrap().contains(why), "{text}");
    }
    let mut result = result();
    (result.ramp_s, result.plan.connections) = (None, 0);
    let times = AllTimes::default();
    let judge = |text: &str| require(text).judge(&Measured { result: &result, times: &times });
    assert!(judge("ramp>0s").unknown.unwrap().contains("ended before"));
    // A share of nothing.
    assert!(judge("failed<=1%").unknown.unwrap().contains("nothing"));
}

#[test]
fn a_percentile_among_the_unanswered_is_unknown_and_not_held() {
    let mut first_byte = Times::default();
    (1..=99).for_each(|us| first_byte.record(us));
    first_byte.miss(1);
    let mut times = AllTimes { first_byte, ..AllTimes::default() };
    let judge =
        |times: &AllTimes, text: &str| require(text).judge(&Measured { result: &result(), times });
    assert!(judge(&times, "first_byte_p99<100ms").held);
    let unknown = judge(&times, "first_byte_p99.1<100ms").unknown.unwrap();
    assert_eq!(
        unknown,
        "1 of 100 had no right answer within --timeout, and this one is among them"
    );
    times.first_byte.miss(1);
    for text in ["first_byte_p99<100ms", "first_byte_p99>=100ms", "first_byte_max<1s"] {
        let judged = judge(&times, text);
        assert!(!judged.held && judged.actual.is_none(), "{judged:?}");
    }
    assert!(judge(&times, "first_byte_p90<100ms").held);
}

#[test]
fn all_connections_are_wanted_unless_it_is_said_how_many() {
    let reached = |texts: &[&str]| {
        let requirements: Vec<_> = texts.iter().map(|text| require(text)).collect();
        judge_all(&requirements, &mut result(), &AllTimes::default())
    };
    assert!(!reached(&[]) && !reached(&["failed<=1"]));
    assert!(reached(&["connected>=99%"]) && reached(&["connected>=99%", "failed<=1"]));
    assert!(!reached(&["connected>=99%", "failed<1"]) && !reached(&["connected>99.9%"]));
}

#[test]
fn percentiles_have_a_short_form() {
    for (text, name) in [
        ("connect_p99.9<1s", "connect_p99.9"),
        ("connect_p999<1s", "connect_p99.9"),
        ("connect_p9999<1s", "connect_p99.99"),
        ("first_byte_p5<1s", "first_byte_p5"),
        ("sample_p0.1<1s", "sample_p0.1"),
        ("heartbeat_p100<1s", "heartbeat_max"),
    ] {
        assert_eq!(require(text).metric.to_string(), name);
    }
}

#[test]
fn what_makes_no_sense_is_told_with_what_does() {
    for (text, said) in [
        ("", "METRIC OPERATOR VALUE"),
        ("connected", "METRIC OPERATOR VALUE"),
        ("connected=5", "one of =="),
        ("connected!5", "one of =="),
        ("conected==5", "`conected` is no metric. There are: counts connected, held_at_end"),
        ("==5", "`` is no metric"),
        ("connect_p0<1s", "is no metric"),
        ("connect_p100.1<1s", "is no metric"),
        ("connect_p<1s", "is no metric"),
        ("connect_p101<1s", "is no metric"),
        ("connect_p995<1s", "is no metric"),
        ("connect_p05<1s", "is no metric"),
        ("connect_count>1", "is no metric"),
        ("connected==", "is not a count"),
        ("connected===5", "is not a count"),
        ("connected<-1", "is not a count"),
        ("connected<5ms", "is a count, not a time"),
        ("connected<101%", "100% is all"),
        ("errors<1%", "no part of anything"),
        ("connect_p99<50", "needs a unit: 50ns, 50us, 50ms or 50s"),
        ("connect_p99<50%", "not a share"),
        ("connect_p99<50m", "is no time"),
        ("connect_p99<fast", "is no time"),
        ("connect_p99<0.5ns", "no whole number of nanoseconds"),
    ] {
        let error = refusal(text);
        assert!(error.contains(said), "{text}: {error}");
    }
}

/// Every name that can be required, with what is wrong and right behind it.
fn any_name() -> impl Strategy<Value = (String, bool)> {
    let counts = ["connected", "held_at_end", "answered", "failed", "errors", "heartbeat_due"];
    let point = prop_oneof![Just("max".to_owned()), (1u32..=100).prop_map(|p| format!("p{p}"))];
    let family = prop::sample::select(vec!["connect", "first_byte", "sample", "heartbeat"]);
    prop_oneof![
        prop::sample::select(counts.to_vec()).prop_map(|name| (name.to_owned(), false)),
        (family, point).prop_map(|(family, point)| (format!("{family}_{point}"), true)),
        prop::sample::select(vec!["ramp", "elapsed"]).prop_map(|name| (name.to_owned(), true)),
    ]
}

proptest! {
    #[test]
    fn nearly_right_text_is_kept_or_refused_in_one_line(name in "[a-z_]{0,12}(_p[0-9.]{0,4})?|connected|\\PC{0,9}", sign in "[=!<>]{1,2}|\\PC{0,2}", value in "[0-9._]{1,8}[a-zµ%]{0,2}|\\PC{0,9}") {
        let text = format!("{name}{sign}{value}");
        match text.parse::<Requirement>() {
            Ok(requirement) => prop_assert_eq!(requirement.text, text),
            Err(error) => prop_assert_eq!(error.to_string().lines().count(), 1, "{}", error),
        }
    }

    #[test]
    fn what_is_right_is_read_with_or_without_blanks(
        (name, is_time) in any_name(),
        (sign, operator) in prop::sample::select(Operator::ALL.to_vec()),
        number in 0u32..1_000_000_000,
        unit in prop::sample::select(TIMES.to_vec()),
    ) {
        let (suffix, unit, each) = unit;
        let value = if is_time { format!("{number}{suffix}") } else { number.to_string() };
        let tight = require(&format!("{name}{sign}{value}"));
        let wide = require(&format!(" {name} {sign} {value} "));
        prop_assert_eq!(Requirement { text: tight.text.clone(), ..wide }, tight.clone());
        let expected = match is_time {
            true => Threshold::Time { ns: u128::from(number) * u128::from(each), unit },
            false => Threshold::Count(number.into()),
        };
        prop_assert_eq!((tight.operator, tight.threshold), (operator, expected));
        // A time without a unit, a count with one.
        let wrong = if is_time { number.to_string() } else { format!("{number}{suffix}") };
        let text = format!("{name}{sign}{wrong}");
        prop_assert!(text.parse::<Requirement>().is_err(), "{}", text);
    }

    #[test]
    fn exactly_one_of_three_orders_holds(us in 1u64..10_000_000, threshold in 0u64..10_000_000) {
        let mut connect = Times::default();
        connect.record(us);
        let times = AllTimes { connect, ..AllTimes::default() };
        let result = result();
        let held = |sign: &str| {
            require(&format!("connect_max{sign}{threshold}us")).judge(&Measured { result: &result, times: &times }).held
        };
        let [below, equal, above] = ["<", "==", ">"].map(held);
        prop_assert_eq!(u8::from(below) + u8::from(equal) + u8::from(above), 1);
        prop_assert_eq!([held("<="), held(">="), held("!=")], [!above, !below, !equal]);
    }
}

#[test]
fn the_list_of_names_is_complete() {
    let names = names();
    for name in [
        "connected",
        "errors",
        "sample_answered",
        "heartbeat_missed",
        "ramp",
        "sample_took",
        "first_byte",
    ] {
        assert!(names.contains(name), "{name}: {names}");
    }
}
