//! The forms of texts: what a name, a version or an address looks like. Each function says what is wrong.

/// Azure documentation: user names that a machine must not have.
const RESERVED_USERS: &str = "administrator admin user user1 test user2 test1 user3 admin1 1 123 a actuser adm admin2 \
    aspnet backup console david guest john owner root server sql support support_388945a0 sys test2 test3 user4 user5";

/// Everything is fine, or the message.
fn demand(holds: bool, message: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(message()) }
}

/// Azure documentation: the name of a tag.
pub(super) fn tag_name(text: &str) -> Result<(), String> {
    demand((1..=512).contains(&text.chars().count()), || "the name of a tag has 1 to 512 characters".to_owned())?;
    let strange = text.chars().find(|c| "<>%&\\?/".contains(*c) || c.is_control());
    strange.map_or(Ok(()), |c| Err(format!("{c:?} cannot be in the name of a tag")))?;
    let reserved = ["microsoft", "azure", "windows"].into_iter().find(|word| text.to_lowercase().starts_with(word));
    reserved.map_or(Ok(()), |word| Err(format!("names of tags that begin with {word} are Azure's own")))
}

/// Azure documentation: a tag's value has at most 256 characters. Which ones: those that the scripts keep, and `+`,
/// which stands in e-mail addresses.
pub(super) fn tag_value(text: &str) -> Result<(), String> {
    demand(text.chars().count() <= 256, || "a tag in Azure has at most 256 characters".to_owned())?;
    let strange = text.chars().find(|c| !c.is_alphanumeric() && !" ._-:@+".contains(*c));
    strange.map_or(Ok(()), |c| Err(format!("{c:?} cannot be in a tag; letters, digits, spaces and ._-:@+ can")))
}

fn is_uuid(text: &str) -> bool {
    let lengths: Vec<_> = text.split('-').map(str::len).collect();
    lengths == [8, 4, 4, 4, 12] && text.chars().all(|c| c.is_ascii_hexdigit() || c == '-')
}

/// The id of a subscription.
pub(super) fn subscription(text: &str) -> Result<(), String> {
    demand(text.is_empty() || is_uuid(text), || {
        format!("{text:?} is not an id such as 00000000-0000-0000-0000-000000000000; a name will not do")
    })
}

/// The id or the domain of a tenant.
pub(super) fn tenant(text: &str) -> Result<(), String> {
    let domain = text.contains('.') && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c));
    demand(text.is_empty() || domain || is_uuid(text), || format!("{text:?} is neither a tenant's id nor its domain"))
}

/// The name of a region in Azure.
pub(super) fn location(text: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = text.to_ascii_lowercase().replace([' ', '-', '_'], "");
    demand(!text.is_empty() && text.chars().all(plain), || match !name.is_empty() && name.chars().all(plain) {
        true => format!("{text:?} is not the name of a region; write {name}"),
        false => format!("{text:?} is not the name of a region, such as westus2"),
    })
}

/// A machine size of Azure.
pub(super) fn size(text: &str) -> Result<(), String> {
    let rest = text.strip_prefix("Standard_").or_else(|| text.strip_prefix("Basic_")).unwrap_or_default();
    let legal = rest.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    let begins = rest.starts_with(|c: char| c.is_ascii_uppercase()) && rest.contains(|c: char| c.is_ascii_digit());
    demand(legal && begins, || format!("{text:?} is not a machine size of Azure, such as Standard_B2s"))
}

/// Debian's rule for user names, and Azure's list of those it refuses.
pub(super) fn username(text: &str) -> Result<(), String> {
    let first = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c));
    demand(first && rest && text.len() <= 32, || {
        format!("{text:?} is not a user name: up to 32 of a-z, 0-9, - and _, a letter or _ first")
    })?;
    demand(!RESERVED_USERS.split_whitespace().any(|reserved| reserved == text), || {
        format!("Azure does not allow the user name {text}; take another, such as k0rdent")
    })
}

/// `1.2.3`, then perhaps `-rc.1`.
fn is_semantic(text: &str) -> bool {
    let (numbers, pre_release) = text.split_once('-').unwrap_or((text, "0"));
    let number = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let legal = pre_release.chars().all(|c| c.is_ascii_alphanumeric() || ".-".contains(c)) && !pre_release.is_empty();
    legal && numbers.split('.').count() == 3 && numbers.split('.').all(number)
}

/// A version such as 1.1.1.
pub(super) fn semantic_version(text: &str) -> Result<(), String> {
    demand(is_semantic(text), || match text.strip_prefix('v').filter(|rest| is_semantic(rest)) {
        Some(version) => format!("{text:?} has a v too many; write {version}"),
        None => format!("{text:?} is not a version, such as 1.1.1"),
    })
}

/// A release of k0s.
pub(super) fn k0s_version(text: &str) -> Result<(), String> {
    let (kubernetes, build) = text.split_once('+').unwrap_or((text, ""));
    let build = build.strip_prefix("k0s.").unwrap_or_default();
    let numbered = !build.is_empty() && build.chars().all(|c| c.is_ascii_digit());
    let version = kubernetes.strip_prefix('v').is_some_and(is_semantic);
    demand(version && numbered, || format!("{text:?} is not a release of k0s, such as v1.33.2+k0s.0"))
}

/// An https address.
pub(super) fn download_url(text: &str) -> Result<(), String> {
    let host = text.strip_prefix("https://").map(|rest| rest.split('/').next().unwrap_or_default());
    demand(text.is_empty() || host.is_some_and(|host| !host.is_empty()), || format!("{text:?} is not an https address"))
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> Result<(), String> {
    demand(text.is_empty() || crate::release::is_digest(text), || {
        format!("{text:?} is not a SHA-256 in hexadecimal, as `sha256sum` prints it")
    })
}

/// Later runs read the file again, and may start anywhere.
pub(super) fn absolute_path(text: &str) -> Result<(), String> {
    demand(text.is_empty() || std::path::Path::new(text).is_absolute(), || {
        format!("{text:?} is not an absolute path; later runs read the file again, wherever they start")
    })
}

/// The OCI address of a chart.
pub(super) fn registry(text: &str) -> Result<(), String> {
    let path = text.strip_prefix("oci://").unwrap_or_default();
    demand(path.split('/').filter(|part| !part.is_empty()).count() >= 2, || {
        format!("{text:?} is not a chart's OCI address, such as oci://ghcr.io/k0rdent/kcm/charts/kcm")
    })
}

/// A name in Kubernetes.
pub(super) fn dns_label(text: &str) -> Result<(), String> {
    let legal = text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    let ends = !text.starts_with('-') && !text.ends_with('-');
    demand(legal && ends && (1..=63).contains(&text.len()), || {
        format!("{text:?} is not a name in Kubernetes: up to 63 of a-z, 0-9 and -, not - first or last")
    })
}
