//! Documents that we write.

use serde::Serialize;

/// A document as YAML. Ours are made of maps with text as keys, lists, text and numbers, so there is no error that could
/// leave an empty file behind. JSON first: the YAML writer then sees plain values only.
pub(crate) fn yaml(document: &impl Serialize) -> String {
    let value = serde_json::to_value(document).expect("its keys are text");
    serde_saphyr::to_string(&value).expect("JSON is YAML (YAML 1.2.2, section 1.3)")
}
