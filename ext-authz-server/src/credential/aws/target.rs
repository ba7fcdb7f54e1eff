//! For which service and region a request is signed: what the operator allows, and what the host says.

/// What a binding may sign for. Neither list is empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Signing names of services.
    pub services: Vec<String>,
    /// Regions.
    pub regions: Vec<String>,
}

/// Why a request is not signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Several are allowed, and the host does not choose.
    #[error("the host `{host}` does not say which {what} it is of, and several are allowed: allow one")]
    Unclear {
        /// `service` or `region`.
        what: &'static str,
        /// The authority.
        host: String,
    },
    /// The host is of another one.
    #[error("the host `{host}` is of the {what} `{found}`, which is not allowed")]
    NotAllowed {
        /// `service` or `region`.
        what: &'static str,
        /// The authority.
        host: String,
        /// What the host says.
        found: String,
    },
}

/// Labels of hosts whose service signs under another name.
const SIGNING_NAMES: [(&str, &str); 8] = [
    ("bedrock-agent", "bedrock"),
    ("bedrock-agent-runtime", "bedrock"),
    ("bedrock-runtime", "bedrock"),
    ("email", "ses"),
    ("lambda-url", "lambda"),
    ("queue", "sqs"),
    ("s3-accesspoint", "s3"),
    ("s3-control", "s3"),
];

/// The end of names that no host has (RFC 2606, 2): that of a trial which is never sent.
const NO_HOST: &str = ".invalid";

/// The region of services whose host names none.
const GLOBAL_REGION: &str = "us-east-1";

// === impl Allowed ===

impl Allowed {
    /// The service and the region to sign for. Where one is allowed that is it, whatever the host is called: a private
    /// endpoint has any name, and a signature for one service is good for no other.
    ///
    /// # Errors
    /// Several are allowed, and the host names none or another one.
    pub fn choose(&self, authority: &str) -> Result<(&str, &str), TargetError> {
        let named = named(host_of(authority));
        let (service, region) = named.map_or((None, None), |(service, region)| (Some(service), Some(region)));
        let service = one_of(&self.services, service, "service", authority)?;
        let region = one_of(&self.regions, region, "region", authority)?;
        Ok((service, region))
    }
}

fn one_of<'a>(
    allowed: &'a [String],
    named: Option<&str>,
    what: &'static str,
    authority: &str,
) -> Result<&'a str, TargetError> {
    let host = || host_of(authority).to_owned();
    match (allowed, named) {
        ([only], _) => Ok(only),
        ([first, ..], None) if host_of(authority).ends_with(NO_HOST) => Ok(first),
        (_, None) => Err(TargetError::Unclear { what, host: host() }),
        (_, Some(named)) => allowed
            .iter()
            .find(|allowed| *allowed == named)
            .map(String::as_str)
            .ok_or_else(|| TargetError::NotAllowed { what, host: host(), found: named.to_owned() }),
    }
}

fn host_of(authority: &str) -> &str {
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

/// The service and the region that one of AWS's own host names stands for.
fn named(host: &str) -> Option<(&str, &str)> {
    let suffixes = [".vpce.amazonaws.com", ".amazonaws.com", ".amazonaws.com.cn", ".api.aws", ".on.aws"];
    let name = suffixes.iter().find_map(|suffix| host.strip_suffix(suffix))?;
    let labels: Vec<&str> = name.split('.').filter(|label| *label != "dualstack").collect();
    let (service, region) = match labels.as_slice() {
        [.., service, region] if is_region(region) => (*service, *region),
        [.., region, service] if is_region(region) => (*service, *region),
        [.., service] => (*service, GLOBAL_REGION),
        [] => return None,
    };
    let service = service.strip_suffix("-fips").unwrap_or(service);
    let other = SIGNING_NAMES.iter().find(|(label, _)| *label == service);
    Some((other.map_or(service, |(_, signing)| signing), region))
}

/// Whether a label has a region's form, as `us-gov-west-1`.
fn is_region(label: &str) -> bool {
    let parts: Vec<&str> = label.split('-').collect();
    let letters = |part: &&str| !part.is_empty() && part.chars().all(|char| char.is_ascii_lowercase());
    match parts.as_slice() {
        [area, middle @ .., number] => {
            (1..=2).contains(&middle.len())
                && area.len() <= 5
                && letters(area)
                && middle.iter().all(letters)
                && (1..=2).contains(&number.len())
                && number.chars().all(|char| char.is_ascii_digit())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_of_aws_names_its_service_and_region() {
        let cases = [
            ("sts.eu-central-1.amazonaws.com", "sts", "eu-central-1"),
            ("sts.amazonaws.com", "sts", "us-east-1"),
            ("iam.amazonaws.com", "iam", "us-east-1"),
            ("bucket.name.s3.eu-west-3.amazonaws.com", "s3", "eu-west-3"),
            ("s3.dualstack.us-west-2.amazonaws.com", "s3", "us-west-2"),
            ("s3-fips.us-gov-west-1.amazonaws.com", "s3", "us-gov-west-1"),
            ("bucket.s3.amazonaws.com", "s3", "us-east-1"),
            ("sqs.cn-north-1.amazonaws.com.cn", "sqs", "cn-north-1"),
            ("bedrock-runtime.us-east-1.amazonaws.com", "bedrock", "us-east-1"),
            ("search-x.eu-west-1.es.amazonaws.com", "es", "eu-west-1"),
            ("vpce-1-a.secretsmanager.eu-west-1.vpce.amazonaws.com", "secretsmanager", "eu-west-1"),
            ("abc.lambda-url.eu-west-1.on.aws", "lambda", "eu-west-1"),
            ("abc.execute-api.eu-west-1.amazonaws.com", "execute-api", "eu-west-1"),
        ];
        for (host, service, region) in cases {
            assert_eq!(named(host), Some((service, region)), "{host}");
        }
        for host in ["example.com", "amazonaws.com", "s3.amazonaws.com.evil.example", "127.0.0.1"] {
            assert_eq!(named(host), None, "{host}");
        }
    }

    fn allowed(services: &[&str], regions: &[&str]) -> Allowed {
        let owned = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Allowed { services: owned(services), regions: owned(regions) }
    }

    #[test]
    fn one_allowed_is_used_and_several_are_chosen_from_by_the_host() {
        let one = allowed(&["s3"], &["eu-central-1"]);
        for host in ["minio.internal:9000", "sts.us-east-1.amazonaws.com"] {
            assert_eq!(one.choose(host), Ok(("s3", "eu-central-1")), "{host}");
        }
        let several = allowed(&["s3", "sts"], &["eu-central-1", "eu-west-1"]);
        assert_eq!(several.choose("b.s3.eu-west-1.amazonaws.com:443"), Ok(("s3", "eu-west-1")));
        assert_eq!(several.choose("upstream.invalid"), Ok(("s3", "eu-central-1")));
        assert!(matches!(several.choose("minio.internal"), Err(TargetError::Unclear { what: "service", .. })));
        for host in ["sqs.eu-west-1.amazonaws.com", "s3.us-east-1.amazonaws.com", "s3.amazonaws.com"] {
            assert!(matches!(several.choose(host), Err(TargetError::NotAllowed { .. })), "{host}");
        }
    }
}
