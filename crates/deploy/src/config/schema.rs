//! The vocabulary of settings: what a key accepts, and the macro that declares a section's struct, keys, defaults and
//! documentation in one place.

use serde_json::Value;

/// What a key accepts. An empty value (`key:` or `key: null`) always means "not set".
#[derive(Clone, Copy)]
pub enum Kind {
    /// A mapping with these keys.
    Section(&'static [Field]),
    /// Any scalar, taken as written.
    Text,
    /// `true` or `false`.
    Boolean,
    /// A whole number from zero to a maximum.
    Integer(u64),
    /// Text with a form: a description of it, and a parser that returns the canonical text or what is wrong.
    Parsed(&'static str, fn(&str) -> Result<String, String>),
    /// A list of values.
    List(&'static Kind),
    /// A mapping that is passed on as it is.
    Free,
    /// A mapping of names to texts, each taken as written.
    Texts,
}

impl Kind {
    /// The kind in words, as in "expected a whole number".
    pub fn describe(&self) -> String {
        match self {
            Self::Section(_) | Self::Free => "a mapping".to_owned(),
            Self::Texts => "a mapping of names to texts".to_owned(),
            Self::Text => "text".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(_) => "a whole number".to_owned(),
            Self::Parsed(description, _) => (*description).to_owned(),
            Self::List(item) => format!("a list, each {}", item.describe()),
        }
    }
}

/// One key of a section.
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it accepts.
    pub kind: Kind,
    /// Its value when it is not set; null for sections, which have the defaults of their keys.
    pub default: fn() -> Value,
    /// Whether it has no default: whoever writes the section must say it.
    pub required: bool,
    /// Why it has no effect, with everything in it; none for a key that this version follows.
    pub idle: Option<&'static str>,
    /// What it means, for documentation.
    pub documentation: &'static str,
}

/// A type that can be a setting.
pub trait Setting {
    /// What the type accepts.
    const KIND: Kind;
}

macro_rules! setting {
    ($($type:ty => $kind:expr),* $(,)?) => { $(impl Setting for $type { const KIND: Kind = $kind; })* };
}

setting! {
    String => Kind::Text,
    bool => Kind::Boolean,
    u8 => Kind::Integer(u8::MAX as u64),
    u16 => Kind::Integer(u16::MAX as u64),
    u32 => Kind::Integer(u32::MAX as u64),
    serde_json::Map<String, Value> => Kind::Free,
    std::collections::BTreeMap<String, String> => Kind::Texts,
    std::net::Ipv4Addr => Kind::Parsed("an IPv4 address such as 10.0.0.4", |text| {
        let parsed: Result<std::net::Ipv4Addr, _> = text.parse();
        parsed.map(|address| address.to_string()).map_err(|_| format!("{text:?} is not an IPv4 address"))
    }),
    ipnet::Ipv4Net => Kind::Parsed("an IPv4 range such as 10.0.0.0/16", range::<ipnet::Ipv4Net>),
    ipnet::IpNet => Kind::Parsed("an address range such as 203.0.113.0/24", range::<ipnet::IpNet>),
}

impl<T: Setting> Setting for Option<T> {
    const KIND: Kind = T::KIND;
}

impl<T: Setting> Setting for Vec<T> {
    const KIND: Kind = Kind::List(&T::KIND);
}

/// A range in CIDR notation whose host bits are zero.
fn range<T: Into<ipnet::IpNet> + std::str::FromStr>(text: &str) -> Result<String, String> {
    let Ok(parsed) = text.parse::<T>() else {
        return Err(match text.parse::<std::net::IpAddr>() {
            Ok(address) => format!("{text} is one address; write it as {}", ipnet::IpNet::from(address)),
            Err(_) => format!("{text:?} is not a range in CIDR notation, such as 10.0.0.0/16"),
        });
    };
    let net: ipnet::IpNet = parsed.into();
    match net.trunc() {
        whole if whole == net => Ok(net.to_string()),
        whole => Err(format!("{text} has bits set after its prefix; write {whole}")),
    }
}

/// Declares sections: for each a struct with public fields and its keys, from `name: type = default;`. The default
/// `required` is none. `name: type = default, idle "reason";` is a key that is accepted without effect.
macro_rules! settings {
    ($($(#[doc = $about:literal])* $section:ident {
        $($(#[doc = $doc:literal])* $name:ident: $type:ty $(= $default:tt)? $(, idle $idle:literal)?;)*
    })*) => { $(
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $section { $($(#[doc = $doc])* pub $name: $type,)* }

        impl Setting for $section {
            const KIND: Kind = Kind::Section(&[$(Field {
                name: stringify!($name),
                kind: <$type as Setting>::KIND,
                default: || settings!(@default $($default)?),
                required: settings!(@required $($default)?),
                idle: settings!(@idle $($idle)?),
                documentation: concat!($($doc),*),
            }),*]);
        }
    )* };
    (@default) => { serde_json::Value::Null };
    (@default required) => { serde_json::Value::Null };
    (@idle) => { None };
    (@idle $idle:literal) => { Some($idle) };
    (@required required) => { true };
    (@required $($default:tt)?) => { false };
    (@default $default:tt) => { serde_json::json!($default) };
}
pub(super) use settings;
