//! What a request must look like, by the API's published description.

use super::{Answer, Refusal, Request, text};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A field, and whether a value is of its type.
pub type Field = (&'static str, fn(&Value) -> bool);

/// Refuses fields that the description does not have, and values of another type.
pub fn fields(body: &Value, known: &[Field]) -> Result<(), Refusal> {
    let refuse = |what: String| Answer::fault(400, 10001, &what);
    let Some(object) = body.as_object() else { return Err(refuse("not an object".into())) };
    for (key, value) in object {
        match known.iter().find(|(name, _)| name == key) {
            None => return Err(refuse(format!("unknown field {key}"))),
            Some((_, fits)) if !fits(value) => return Err(refuse(format!("type of {key}"))),
            _ => {}
        }
    }
    Ok(())
}

/// A secret of 32 bytes in base64 has 44 characters.
pub fn secret(value: &Value) -> bool {
    value.as_str().is_some_and(|text| text.len() >= 44 && text.is_ascii())
}

/// The parameters of a request; unknown ones are refused.
pub fn query(
    request: &Request,
    known: &[&str],
    most: usize,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut asked = BTreeMap::new();
    for (key, value) in &request.query {
        if !known.contains(&key.as_str()) && !["page", "per_page"].contains(&key.as_str()) {
            return Err(Answer::fault(400, 10001, &format!("unknown parameter {key}")));
        }
        asked.insert(key.clone(), value.clone());
    }
    let per_page = asked.get("per_page").map_or(Ok(20), |text| text.parse::<usize>());
    match per_page {
        Ok(per_page) if (5..=most).contains(&per_page) => Ok(asked),
        _ => Err(Answer::fault(400, 10001, "per_page")),
    }
}

pub fn page(request: &Request, all: Vec<Value>) -> Answer {
    let number = |key: &str, default: usize| {
        let said = request.query.iter().find(|(known, _)| known == key);
        said.and_then(|(_, value)| value.parse().ok()).unwrap_or(default)
    };
    let (page, per_page) = (number("page", 1), number("per_page", 20));
    let some: Vec<Value> = all.iter().skip((page - 1) * per_page).take(per_page).cloned().collect();
    let mut answer = Answer::ok(json!(some));
    answer.body["result_info"] = json!({"page": page, "per_page": per_page, "count": some.len(),
        "total_count": all.len(), "total_pages": all.len().div_ceil(per_page)});
    answer
}

/// Refuses a configuration that no connector could run with.
pub fn configuration(config: &Value) -> Result<(), Refusal> {
    let refuse = |what: &str| Err(Answer::fault(400, 1056, &format!("Bad Configuration: {what}")));
    fields(
        config,
        &[
            ("ingress", Value::is_array),
            ("originRequest", Value::is_object),
            ("warp-routing", Value::is_object),
        ],
    )?;
    let rules = config["ingress"].as_array().cloned().unwrap_or_default();
    let Some((last, before)) = rules.split_last() else { return refuse("no rules") };
    for rule in &rules {
        fields(
            rule,
            &[
                ("hostname", Value::is_string),
                ("path", Value::is_string),
                ("service", Value::is_string),
                ("originRequest", Value::is_object),
            ],
        )?;
        let service = text(rule, "service");
        let known = ["http://", "https://", "http_status:", "tcp://", "ssh://", "unix:"];
        if !known.iter().any(|scheme| service.starts_with(scheme)) {
            return refuse("service");
        }
        fields(
            rule.get("originRequest").unwrap_or(&json!({})),
            &[
                ("httpHostHeader", Value::is_string),
                ("originServerName", Value::is_string),
                ("noTLSVerify", Value::is_boolean),
                ("access", Value::is_object),
                ("matchSNItoHost", Value::is_boolean),
                ("connectTimeout", Value::is_u64),
                ("caPool", Value::is_string),
                ("http2Origin", Value::is_boolean),
            ],
        )?;
    }
    let everything =
        |rule: &Value| text(rule, "hostname").is_empty() && text(rule, "path").is_empty();
    if !everything(last) || before.iter().any(everything) {
        return refuse("the last rule, and no other, must match everything");
    }
    Ok(())
}
