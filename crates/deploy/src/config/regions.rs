//! The regions of Azure, to notice a name that is misspelt before Azure is asked for machines there.

/// Regions with virtual machines, of the public cloud and the two others (Azure documentation, list of regions of 2025).
const REGIONS: &str = "australiacentral australiacentral2 australiaeast australiasoutheast austriaeast belgiumcentral \
    brazilsouth brazilsoutheast canadacentral canadaeast centralindia centralus centraluseuap chilecentral eastasia eastus \
    eastus2 eastus2euap francecentral francesouth germanynorth germanywestcentral indonesiacentral israelcentral italynorth \
    japaneast japanwest jioindiacentral jioindiawest koreacentral koreasouth malaysiawest mexicocentral newzealandnorth \
    northcentralus northeurope norwayeast norwaywest polandcentral qatarcentral southafricanorth southafricawest \
    southcentralus southeastasia southeastus southindia spaincentral swedencentral swedensouth switzerlandnorth \
    switzerlandwest uaecentral uaenorth uksouth ukwest westcentralus westeurope westindia westus westus2 westus3 \
    usgovarizona usgovtexas usgovvirginia usdodcentral usdodeast chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 \
    chinanorth3";
/// How much a name must be like one of them.
const SIMILAR_ENOUGH: f64 = 0.7;

/// What is strange about the name of a region; nothing if it is known. New regions are not: whether there is one is
/// Azure's to say.
pub(super) fn trouble(location: &str) -> Option<String> {
    let known = || REGIONS.split_whitespace();
    if known().any(|region| region == location) {
        return None;
    }
    let similarity = |region: &str| strsim::normalized_damerau_levenshtein(region, location);
    let like = known().map(|region| (similarity(region), region)).filter(|(similar, _)| *similar >= SIMILAR_ENOUGH);
    Some(match like.max_by(|(one, _), (other, _)| one.total_cmp(other)) {
        Some((_, region)) => format!("no region {location} is known here; did you mean {region}?"),
        None => format!("no region {location} is known here; `az account list-locations` names all"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_region_is_noticed() {
        assert_eq!(trouble("westeurope"), None);
        assert_eq!(
            trouble("westeurop").as_deref(),
            Some("no region westeurop is known here; did you mean westeurope?")
        );
        assert_eq!(trouble("eastus4").as_deref(), Some("no region eastus4 is known here; did you mean eastus2?"));
        assert!(trouble("atlantis").is_some_and(|text| text.contains("list-locations")));
    }
}
