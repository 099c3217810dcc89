//! The JSON Schemas of a record and of the status document: templates in which the closed sets are
//! filled in from the tables.
//!
//! Each schema is complete by itself: one that refers to another is of no use to who has only a
//! copy of it.

use crate::cause::{Cause, Phase};
use crate::findings::{Code, Confidence, Key, Kind};
use crate::outcome::{Origin, Outcome, origin};
use crate::peer::State;

/// What both describe.
const DEFINITIONS: &str = include_str!("schema/defs.json");
const RECORD: &str = include_str!("schema/record.json");
const STATUS: &str = include_str!("schema/status.json");

/// Stands for [`DEFINITIONS`].
const PLACE: &str = r#""@defs": "@defs""#;

/// Stands for the keys of the evidence of findings.
const EVIDENCE: &str = r#""@evidence": "@evidence""#;

/// Longest line of a list.
const WIDTH: usize = 100;

/// The schema of a record: of a log line, of `$upstream_diag_json` and of an item of `recent`.
pub fn record() -> String {
    fill(RECORD)
}

/// The schema of the status document.
pub fn status() -> String {
    fill(STATUS)
}

/// A template with its placeholders filled in. Each of them stands in a line of its own.
fn fill(template: &str) -> String {
    let mut filled = String::new();
    for line in template.lines() {
        if line.trim_start() == PLACE {
            // Without the braces, and as far in as this line.
            let lines = DEFINITIONS.lines().filter(|line| line.starts_with(' '));
            let outer = indent(line).strip_prefix("  ").unwrap_or_default();
            for line in lines {
                push(&mut filled, &format!("{outer}{line}"));
            }
        } else {
            push(&mut filled, line);
        }
    }
    filled
}

/// Appends a line, or the list that it stands for.
fn push(filled: &mut String, line: &str) {
    let (indent, content) = (indent(line), line.trim_start());
    if content == EVIDENCE {
        push_evidence(filled, indent);
        return;
    }
    let (name, comma) = match content.strip_suffix(',') {
        Some(name) => (name, ","),
        None => (content, ""),
    };
    let Some(names) = list(name) else {
        filled.extend([line, "\n"]);
        return;
    };
    let mut row = indent.to_owned();
    let last = names.len().saturating_sub(1);
    for (at, name) in names.iter().enumerate() {
        let item = format!("\"{name}\"{}", if at < last { "," } else { comma });
        let begun = row.len() > indent.len();
        if begun && row.len().saturating_add(item.len()) >= WIDTH {
            filled.extend([row.as_str(), "\n"]);
            row = indent.to_owned();
        } else if begun {
            row.push(' ');
        }
        row.push_str(&item);
    }
    filled.extend([row.as_str(), "\n"]);
}

/// Appends what each key of the evidence of findings is.
fn push_evidence(filled: &mut String, indent: &str) {
    let last = Key::ALL.len().saturating_sub(1);
    for (at, key) in Key::ALL.iter().enumerate() {
        let kind = match key.kind() {
            Kind::Count => r##""$ref": "#/$defs/count""##,
            Kind::Time => r##""$ref": "#/$defs/seconds""##,
            Kind::Text => r#""type": "string""#,
            Kind::Texts => r#""type": "array", "items": { "type": "string" }"#,
            Kind::Flag => r#""type": "boolean""#,
        };
        let meaning = key.meaning().replace('`', "");
        let comma = if at < last { "," } else { "" };
        filled.push_str(&format!(
            "{indent}\"{}\": {{\n{indent}  \"description\": \"{meaning}\",\n{indent}  {kind}\n{indent}}}{comma}\n",
            key.slug()
        ));
    }
}

fn indent(line: &str) -> &str {
    line.strip_suffix(line.trim_start()).unwrap_or_default()
}

/// The closed set that a placeholder stands for.
fn list(placeholder: &str) -> Option<Vec<&'static str>> {
    let causes = Cause::ALL.iter();
    let mut names: Vec<&'static str> = match placeholder {
        r#""@causes""# => causes.map(|cause| cause.slug()).collect(),
        r#""@phases""# => causes.filter_map(|cause| cause.row().phase).map(Phase::slug).collect(),
        r#""@outcomes""# => Outcome::ALL.map(Outcome::slug).to_vec(),
        r#""@origins""# => causes.map(|cause| origin(*cause)).map(Origin::slug).collect(),
        r#""@proxy_errors""# => causes.map(|cause| cause.row().proxy_error).collect(),
        r#""@states""# => {
            [State::Up, State::Unavailable, State::Down, State::Busy].map(State::slug).to_vec()
        }
        r#""@codes""# => Code::ALL.iter().map(|code| code.slug()).collect(),
        r#""@confidences""# => Confidence::ALL.map(Confidence::slug).to_vec(),
        _ => return None,
    };
    // The tables have one row for each cause: several share a phase.
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    Some(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Calls a function with every object in a value and the path to it.
    fn each_object(path: &str, value: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        match value {
            Value::Object(keys) => {
                visit(path, value);
                keys.iter().for_each(|(key, value)| {
                    each_object(&format!("{path}/{key}"), value, visit);
                });
            }
            Value::Array(items) => items.iter().for_each(|item| each_object(path, item, visit)),
            _ => {}
        }
    }

    /// Guards against a placeholder that is left, and against a template that is no JSON once it
    /// is filled in.
    #[test]
    fn schemas_are_complete() {
        for schema in [record(), status()] {
            assert!(!schema.contains('@'), "{schema}");
            assert!(schema.lines().all(|line| line == line.trim_end()));
            let schema: Value = serde_json::from_str(&schema).unwrap();
            let defs = &schema["$defs"];
            let causes: Vec<&str> = Cause::ALL.iter().map(|cause| cause.slug()).collect();
            assert_eq!(defs["cause"]["enum"], serde_json::json!(causes));
            let phases = ["resolve", "select", "connect", "tls", "send", "header", "body"];
            assert_eq!(defs["phase"]["enum"], serde_json::json!(phases));
            let finding = &defs["finding"]["properties"];
            let codes: Vec<&str> = Code::ALL.iter().map(|code| code.slug()).collect();
            assert_eq!(finding["code"]["enum"], serde_json::json!(codes));
            let evidence = finding["evidence"]["properties"].as_object().unwrap();
            assert_eq!(evidence.len(), Key::ALL.len());
            let origins = ["nginx", "upstream", "cache", "config"];
            assert_eq!(defs["origin"]["enum"], serde_json::json!(origins));
        }
    }

    /// Guards against a reference to what is not there, and a definition that nothing refers to or
    /// that stands there twice.
    #[test]
    fn references_and_definitions_belong_together() {
        for text in [record(), status()] {
            let schema: Value = serde_json::from_str(&text).unwrap();
            let mut used = BTreeSet::new();
            each_object("", &schema, &mut |_, object| {
                let target = object.get("$ref").and_then(Value::as_str);
                used.extend(target.and_then(|t| t.strip_prefix("#/$defs/")).map(str::to_owned));
            });
            let defined = schema["$defs"].as_object().unwrap().keys().cloned();
            assert_eq!(used, defined.collect());
            let (_, definitions) = text.split_once("\n  \"$defs\"").unwrap();
            for name in used {
                assert_eq!(
                    definitions.matches(&format!("\n    \"{name}\": {{")).count(),
                    1,
                    "{name}"
                );
            }
        }
    }

    /// Guards against a key that is misspelt in a required list, and an object that takes any key.
    #[test]
    fn objects_are_closed() {
        for text in [record(), status()] {
            let schema: Value = serde_json::from_str(&text).unwrap();
            each_object("", &schema, &mut |path, object| {
                if object["type"] != "object" {
                    return;
                }
                // Upstreams have any name, and that is said too.
                assert!(object.get("additionalProperties").is_some(), "{path}");
                let names = &object["propertyNames"]["enum"];
                for required in object["required"].as_array().into_iter().flatten() {
                    let known = !object["properties"][required.as_str().unwrap()].is_null()
                        || names.as_array().is_some_and(|names| names.contains(required));
                    assert!(known, "{required} of {path}");
                }
            });
        }
    }
}
