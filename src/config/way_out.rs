//! How receivers are reached: which addresses, over what, and whose certificates.

use std::fmt;
use std::str::FromStr;

use super::{Faults, ServeArguments, read_authority, value};
use crate::domain::address::{AddressPolicy, Cidr, EgressAllow, Nat64Prefix};
use crate::egress::{MixedAnswers, Settings};

pub(super) fn read(arguments: &ServeArguments, faults: &mut Faults) -> Option<Settings> {
    let before = faults.0.len();
    let allow = read_list::<EgressAllow>("egress-allow", &arguments.egress_allow, faults);
    let deny = read_list::<Cidr>("egress-deny", &arguments.egress_deny, faults);
    let nat64 = read_nat64(arguments, faults);
    let policy = AddressPolicy { allow, deny, nat64, ..AddressPolicy::default() };
    let mut settings = Settings::new(policy);
    for text in value::words(&arguments.egress_nameserver) {
        settings.nameservers.extend(faults.note("egress-nameserver", value::nameserver(text)));
    }
    let mixed = faults.note("egress-mixed-answers", mixed_answers(&arguments.egress_mixed_answers));
    settings.mixed_answers = mixed.unwrap_or_default();
    // An empty variable is one that is not set.
    let proxy = arguments.egress_proxy.as_deref().filter(|text| !text.is_empty());
    if let Some(text) = proxy {
        settings.proxy = faults.note("egress-proxy", value::host_and_port(text));
    }
    for path in value::paths(&arguments.egress_ca) {
        settings.ca_files_pem.extend(faults.note("egress-ca", read_authority(path)));
    }
    (faults.0.len() == before).then_some(settings)
}

fn mixed_answers(text: &str) -> Result<MixedAnswers, &'static str> {
    match text {
        "refuse" => Ok(MixedAnswers::Refuse),
        "filter" => Ok(MixedAnswers::Filter),
        _ => Err("write refuse or filter"),
    }
}

fn read_nat64(arguments: &ServeArguments, faults: &mut Faults) -> Vec<Nat64Prefix> {
    let nat64 = read_list::<Nat64Prefix>("egress-nat64", &arguments.egress_nat64, faults);
    for (place, one) in nat64.iter().enumerate() {
        if nat64[..place].iter().any(|other| one.overlaps(*other)) {
            faults.note::<(), _>("egress-nat64", Err("one prefix lies in another"));
        }
    }
    nat64
}

fn read_list<T>(flag: &str, texts: &[String], faults: &mut Faults) -> Vec<T>
where
    T: FromStr<Err: fmt::Display>,
{
    let read = |text: &str| text.parse::<T>().map_err(|why| format!("{text}: {why}"));
    value::words(texts).filter_map(|text| faults.note(flag, read(text))).collect()
}
