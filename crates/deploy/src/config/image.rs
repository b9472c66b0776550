//! The image that machines are made from.

use serde::{Deserialize, Serialize};

use super::{
    model::Architecture,
    schema::{Kind, Setting},
};

/// An image of the marketplace, or one of somebody's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Image {
    /// One that a publisher offers to everybody.
    Marketplace {
        /// Who publishes it.
        publisher: String,
        /// The product.
        offer: String,
        /// The variant.
        sku: String,
        /// The version, or `latest`.
        version: String,
    },
    /// One in a gallery (Azure documentation: Azure Compute Gallery).
    Gallery {
        /// The identifier of its definition: `/subscriptions/.../galleries/GALLERY/images/IMAGE`.
        definition: String,
        /// The version; the latest if absent.
        version: Option<String>,
    },
}

/// What the parts of a gallery's image are called in its identifier, each before its name.
const PARTS: [&str; 5] = ["subscriptions", "resourceGroups", "providers", "galleries", "images"];

impl Image {
    /// The architecture, by the custom of publishers to name arm64 in the SKU (Debian, Ubuntu). That of an own image is
    /// Azure's to say.
    pub fn architecture(&self) -> Option<Architecture> {
        match self {
            Self::Marketplace { sku, .. } if sku.to_ascii_lowercase().contains("arm64") => Some(Architecture::Arm64),
            Self::Marketplace { .. } => Some(Architecture::X64),
            Self::Gallery { .. } => None,
        }
    }

    /// Reads `/subscriptions/S/resourceGroups/G/providers/Microsoft.Compute/galleries/GALLERY/images/IMAGE`, with or without
    /// `/versions/VERSION` behind it.
    fn gallery(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.strip_prefix('/')?.split('/').collect();
        let (image, version) = match parts.as_slice() {
            [image @ .., versions, version] if versions.eq_ignore_ascii_case("versions") => (image, Some(*version)),
            image => (image, None),
        };
        let legal = |part: &&str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "-_.()".contains(c));
        let named = |(place, name): (usize, &str)| image.get(place).is_some_and(|part| part.eq_ignore_ascii_case(name));
        let is_image = image.len() == 10
            && [0, 2, 4, 6, 8].into_iter().zip(PARTS).all(named)
            && named((5, "Microsoft.Compute"))
            && image.iter().chain(version.iter()).all(legal);
        is_image.then(|| Self::Gallery {
            definition: format!("/{}", image.join("/")),
            version: version.filter(|version| !version.eq_ignore_ascii_case("latest")).map(str::to_owned),
        })
    }
}

impl TryFrom<String> for Image {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.starts_with('/') {
            return Self::gallery(&text).ok_or_else(|| {
                format!(
                    "{text:?} is not the id of an image in a gallery, as in \
                    /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.Compute/galleries/GALLERY/images/IMAGE; \
                    `az sig image-definition show` prints it"
                )
            });
        }
        let legal =
            |part: &&str| part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !part.is_empty();
        match text.split(':').filter(legal).collect::<Vec<_>>()[..] {
            [publisher, offer, sku, version] if text.matches(':').count() == 3 => {
                let [publisher, offer, sku, version] = [publisher, offer, sku, version].map(str::to_owned);
                Ok(Self::Marketplace { publisher, offer, sku, version })
            }
            _ => Err(format!("{text:?} is not publisher:offer:sku:version, as in Debian:debian-12:12-gen2:latest")),
        }
    }
}

impl From<Image> for String {
    fn from(image: Image) -> Self {
        image.to_string()
    }
}

impl std::fmt::Display for Image {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Marketplace { publisher, offer, sku, version } => {
                write!(formatter, "{publisher}:{offer}:{sku}:{version}")
            }
            Self::Gallery { definition, version: Some(version) } => {
                write!(formatter, "{definition}/versions/{version}")
            }
            Self::Gallery { definition, version: None } => formatter.write_str(definition),
        }
    }
}

impl Setting for Image {
    const KIND: Kind = Kind::Parsed("an image as publisher:offer:sku:version, or the id of one in a gallery", |text| {
        Image::try_from(text.to_owned()).map(String::from)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/own/images/debian";

    #[test]
    fn an_image_of_an_own_gallery_is_known_by_its_id() {
        let image = |text: &str| Image::try_from(text.to_owned());
        let with = |version: Option<&str>| {
            let version = version.map(str::to_owned);
            Ok(Image::Gallery { definition: OWN.to_owned(), version })
        };
        assert_eq!(image(OWN), with(None));
        assert_eq!(image(&format!("{OWN}/versions/1.2.3")), with(Some("1.2.3")));
        assert_eq!(image(&format!("{OWN}/versions/latest")), with(None));
        for wrong in [
            "/",
            "/subscriptions/s",
            &OWN.replace("galleries", "disks"),
            &format!("{OWN}/versions"),
            &format!("{OWN}/x/1"),
        ] {
            assert!(
                image(wrong).is_err_and(|error| error.contains("is not the id of an image in a gallery")),
                "{wrong}"
            );
        }
        assert!(image("a:b:c").is_err_and(|error| error.contains("publisher:offer:sku:version")));
    }
}
