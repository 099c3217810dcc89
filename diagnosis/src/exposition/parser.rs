//! A strict reader of the two text formats, for tests: what it lets through, any scraper reads.

use std::collections::{BTreeMap, BTreeSet};

use super::encode::Dialect;

/// What the descriptions say of a family, and its samples.
#[derive(Debug, Default)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) unit: Option<String>,
    pub(super) samples: Vec<Sample>,
}

/// A line with a value.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// The families of a text, or what is wrong with it.
pub(super) fn parse(text: &str, dialect: Dialect) -> Result<Vec<Family>, String> {
    let mut rest = text;
    if dialect == Dialect::OpenMetrics {
        rest = text.strip_suffix("# EOF\n").ok_or("no end")?;
    }
    let mut families: Vec<Family> = Vec::new();
    let mut names = BTreeSet::new();
    let mut series = BTreeSet::new();
    for line in rest.strip_suffix('\n').ok_or("the last line is cut")?.split('\n') {
        if line.chars().any(char::is_control) {
            return Err(format!("a control character: {line:?}"));
        }
        let Some(described) = line.strip_prefix("# ") else {
            let family = families.last_mut().ok_or("a sample of no family")?;
            let sample = sample(line)?;
            if !series.insert((sample.name.clone(), sample.labels.clone())) {
                return Err(format!("twice: {line}"));
            }
            family.samples.push(sample);
            continue;
        };
        let (what, described) = described.split_once(' ').ok_or("no name")?;
        let (name, value) = described.split_once(' ').ok_or("no value")?;
        if what == "HELP" {
            if !is_name(name) || !names.insert(name.to_owned()) || value.contains(['\\', '"']) {
                return Err(format!("not a new family with a plain help: {line}"));
            }
            families.push(Family { name: name.into(), ..Family::default() });
            continue;
        }
        let family = families.last_mut().filter(|family| family.samples.is_empty());
        let family = family.filter(|family| family.name == name).ok_or(line)?;
        match (what, dialect) {
            ("TYPE", _) if family.kind.is_empty() => family.kind = value.into(),
            ("UNIT", Dialect::OpenMetrics) if name.ends_with(&format!("_{value}")) => {
                family.unit = Some(value.into());
            }
            _ => return Err(format!("not known here: {line}")),
        }
    }
    families.iter().try_for_each(|family| check(family, dialect))?;
    Ok(families)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// `name{label="value",...} number`
fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or(line)?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, behind) = rest.split_once("=\"").ok_or(line)?;
            let (value, behind) = quoted(behind)?;
            if !is_name(label) || labels.insert(label.to_owned(), value).is_some() {
                return Err(format!("the label {label} in {line}"));
            }
            if let Some(behind) = behind.strip_prefix(',') {
                rest = behind;
                continue;
            }
            rest = behind.strip_prefix('}').ok_or(line)?;
            break;
        }
    }
    let number = rest.strip_prefix(' ').filter(|number| !number.contains(' ')).ok_or(line)?;
    let value = number.parse().map_err(|_| line)?;
    Ok(Sample { name: name.into(), labels, value })
}

/// The value of a label up to its closing quote, and what is behind that.
fn quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        value.push(match c {
            '"' => return Ok((value, chars.as_str())),
            '\\' => match chars.next() {
                Some(c @ ('\\' | '"')) => c,
                Some('n') => '\n',
                _ => return Err(format!("an unknown escape in {text}")),
            },
            c => c,
        });
    }
    Err(format!("no closing quote in {text}"))
}

/// Whether the samples are such as the type has.
fn check(family: &Family, dialect: Dialect) -> Result<(), String> {
    let suffixes: &[&str] = match (family.kind.as_str(), dialect) {
        ("counter", Dialect::OpenMetrics) => &["_total"],
        ("info", Dialect::OpenMetrics) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        ("gauge", _) | ("counter", Dialect::Prometheus) => &[""],
        (other, _) => return Err(format!("no type {other}")),
    };
    for sample in &family.samples {
        let suffix = sample.name.strip_prefix(&family.name).ok_or(sample.name.as_str())?;
        if !suffixes.contains(&suffix) || !sample.value.is_finite() || sample.value < 0.0 {
            return Err(format!("not of a {}: {sample:?}", family.kind));
        }
        if (suffix == "_bucket") != sample.labels.contains_key("le") {
            return Err(format!("le is missing or too much: {sample:?}"));
        }
    }
    if family.kind == "histogram" { histogram(family) } else { Ok(()) }
}

/// Buckets stand together and in order, grow, and end with the count.
fn histogram(family: &Family) -> Result<(), String> {
    let mut counts = BTreeMap::new();
    let mut buckets: BTreeMap<_, Vec<(f64, f64)>> = BTreeMap::new();
    for sample in &family.samples {
        let mut labels = sample.labels.clone();
        match labels.remove("le") {
            Some(le) if le == "+Inf" || le.contains('.') => {
                let bound = le.parse().map_err(|_| le)?;
                buckets.entry(labels).or_default().push((bound, sample.value));
            }
            Some(le) => return Err(format!("le is {le}")),
            None if sample.name.ends_with("_count") => {
                counts.insert(labels, sample.value);
            }
            None => {}
        }
    }
    for (labels, buckets) in &buckets {
        let grows = buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1);
        let all = buckets.last().filter(|(bound, _)| bound.is_infinite()).map(|(_, count)| count);
        if !grows || all != counts.get(labels) {
            return Err(format!(
                "buckets {buckets:?} of {labels:?}, count {:?}",
                counts.get(labels)
            ));
        }
    }
    if counts.len() == buckets.len() { Ok(()) } else { Err("a count without buckets".into()) }
}
