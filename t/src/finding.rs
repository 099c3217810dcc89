//! What a record concludes, word for word.

use serde_json::{Map, Value};

use crate::diag::Seen;

impl Seen {
    /// The codes of its findings, the strongest first.
    pub fn codes(&self) -> Vec<&str> {
        self.findings().iter().map(|finding| finding["code"].as_str().expect("a code")).collect()
    }

    /// The finding with this code.
    ///
    /// # Panics
    /// When there is none.
    pub fn finding(&self, code: &str) -> &Value {
        let found = self.findings().iter().find(|finding| finding["code"] == code);
        found.unwrap_or_else(|| panic!("no {code} in {:#}", self.record))
    }

    /// Checks that there is no finding with this code.
    ///
    /// # Panics
    /// When there is one.
    pub fn is_silent(&self, code: &str) -> &Self {
        assert!(!self.codes().contains(&code), "{code} in {:#}", self.record);
        self
    }

    /// Checks a finding and all of its evidence. Two numbers in an array are a range, for what is
    /// measured; in the text `<key>` stands for a time of the evidence as people read it.
    ///
    /// # Panics
    /// When it is not there, or differs.
    pub fn finds(&self, code: &str, confidence: &str, text: &str, evidence: &Value) -> &Self {
        let finding = self.finding(code);
        let (wanted, got) = (object(evidence), object(&finding["evidence"]));
        assert!(wanted.keys().eq(got.keys()), "{evidence} is wanted of {finding:#}");
        for (key, value) in got {
            match wanted[key].as_array().map(Vec::as_slice) {
                Some([Value::Number(from), Value::Number(to)]) => {
                    let (from, to) = (from.as_f64(), to.as_f64());
                    let within = from <= value.as_f64() && value.as_f64() <= to;
                    assert!(within, "{key}: {evidence} is wanted of {finding:#}");
                }
                _ => assert_eq!(value, &wanted[key], "{key} of {finding:#}"),
            }
        }
        assert_eq!(finding["text"], with_times(text, got), "{finding:#}");
        assert_eq!(finding["confidence"], confidence, "{finding:#}");
        self
    }

    /// Checks that the record advises this, with times of the evidence of a finding.
    ///
    /// # Panics
    /// When it advises something else.
    pub fn advises(&self, code: &str, advice: &str) -> &Self {
        let advice = with_times(advice, object(&self.finding(code)["evidence"]));
        assert_eq!(self.record["advice"], advice, "{:#}", self.record);
        self
    }

    fn findings(&self) -> &[Value] {
        // The key is left out where nothing is concluded.
        self.record["findings"].as_array().map(Vec::as_slice).unwrap_or_default()
    }
}

fn object(value: &Value) -> &Map<String, Value> {
    value.as_object().unwrap_or_else(|| panic!("no object: {value}"))
}

fn with_times(text: &str, evidence: &Map<String, Value>) -> String {
    evidence.iter().fold(text.to_owned(), |text, (key, value)| {
        let mark = format!("<{key}>");
        if text.contains(&mark) { text.replace(&mark, &span(value)) } else { text }
    })
}

/// A time below two minutes as people read it.
///
/// # Panics
/// When it is none.
pub fn span(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or_else(|| panic!("no time: {seconds}"));
    // Whole milliseconds are rounded half up, which a fraction of two would not always be.
    let in_units = |unit: f64| ((seconds * 1000.0).round() / unit + 0.5).floor() * unit / 1000.0;
    if seconds < 1.0 {
        format!("{:.2} s", in_units(10.0))
    } else {
        format!("{:.1} s", in_units(100.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen() -> Seen {
        let finding = json!({
            "code": "went_away", "confidence": "likely", "text": "It answered until 1.3 s ago.",
            "evidence": {"last_ok": 1.25, "ok": 7},
        });
        let record = json!({"advice": "Look there, 1.3 s ago.", "findings": [finding]});
        Seen { record, variables: Map::new() }
    }

    #[test]
    fn findings_are_compared() {
        let text = "It answered until <last_ok> ago.";
        seen()
            .finds("went_away", "likely", text, &json!({"last_ok": [1.0, 1.5], "ok": 7}))
            .advises("went_away", "Look there, <last_ok> ago.")
            .is_silent("restarted");
        assert_eq!(seen().codes(), ["went_away"]);
    }

    /// Guards against a comparison that lets a wrong finding through.
    #[test]
    fn differences_are_found() {
        let text = "It answered until <last_ok> ago.";
        for (confidence, text, evidence) in [
            ("certain", text, json!({"last_ok": [1.0, 1.5], "ok": 7})),
            ("likely", "It answered until 1.2 s ago.", json!({"last_ok": [1.0, 1.5], "ok": 7})),
            ("likely", text, json!({"last_ok": [1.3, 1.5], "ok": 7})),
            ("likely", text, json!({"last_ok": [1.0, 1.2], "ok": 7})),
            ("likely", text, json!({"last_ok": 1.25, "ok": 8})),
            ("likely", text, json!({"last_ok": 1.25})),
            ("likely", text, json!({"last_ok": 1.25, "ok": 7, "failures": 1})),
        ] {
            let compare = || drop(seen().finds("went_away", confidence, text, &evidence).codes());
            assert!(std::panic::catch_unwind(compare).is_err(), "{confidence} {text} {evidence}");
        }
    }

    #[test]
    fn times_are_rounded_as_the_module_does() {
        for (seconds, text) in [
            (0.0, "0.00 s"),
            (0.375, "0.38 s"),
            (0.374, "0.37 s"),
            (1.25, "1.3 s"),
            (0.005, "0.01 s"),
        ] {
            assert_eq!(span(&json!(seconds)), text);
        }
    }
}
