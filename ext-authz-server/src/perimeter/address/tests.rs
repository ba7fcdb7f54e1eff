use super::*;

fn class(text: &str) -> Option<Class> {
    class_of(text.parse().unwrap_or_else(|_| panic!("{text}")))
}

#[test]
fn every_address_that_is_not_public_is_told() {
    use Class::*;
    let cases = [
        ("0.0.0.0", ThisNetwork),
        ("0.1.2.3", ThisNetwork),
        ("10.0.0.1", Private),
        ("100.64.0.1", CarrierGrade),
        ("100.127.255.255", CarrierGrade),
        ("100.100.100.200", Metadata),
        ("127.0.0.1", Loopback),
        ("127.255.255.254", Loopback),
        ("168.63.129.16", Metadata),
        ("169.254.1.1", LinkLocal),
        ("169.254.169.254", Metadata),
        ("169.254.170.2", Metadata),
        ("172.16.0.1", Private),
        ("172.31.255.255", Private),
        ("192.0.0.8", Reserved),
        ("192.0.0.192", Metadata),
        ("192.0.2.1", Documentation),
        ("192.88.99.1", Reserved),
        ("192.168.255.255", Private),
        ("198.18.0.1", Reserved),
        ("198.19.255.255", Reserved),
        ("198.51.100.1", Documentation),
        ("203.0.113.1", Documentation),
        ("224.0.0.1", Multicast),
        ("239.255.255.255", Multicast),
        ("240.0.0.1", Reserved),
        ("255.255.255.255", Reserved),
        ("::", ThisNetwork),
        ("::1", Loopback),
        ("::2", ThisNetwork),
        ("::7f00:1", Loopback),
        ("::8.8.8.8", Reserved),
        ("::ffff:10.0.0.1", Private),
        ("::ffff:169.254.169.254", Metadata),
        ("::ffff:0:127.0.0.1", Loopback),
        ("::ffff:0:8.8.8.8", Reserved),
        ("64:ff9b::a9fe:a9fe", Metadata),
        ("64:ff9b::10.0.0.1", Private),
        ("64:ff9b:1::8.8.8.8", Private),
        ("64:ff9b:1::169.254.169.254", Metadata),
        ("100::1", Reserved),
        ("2001:0:4136:e378:8000:63bf:5601:5601", Metadata),
        ("2001:0:4136:e378:8000:63bf:f5ff:fffe", Private),
        ("2001:0:4136:e378:8000:63bf:f7f7:f7f7", Reserved),
        ("2001:2::1", Reserved),
        ("2001:20::1", Reserved),
        ("2001:db8::1", Documentation),
        ("2002:a00:1::1", Private),
        ("2002:7f00:1::", Loopback),
        ("2002:a9fe:a9fe::1", Metadata),
        ("2600::200:5efe:169.254.169.254", Metadata),
        ("2600::5efe:10.0.0.1", Private),
        ("3fff::1", Documentation),
        ("4000::1", Reserved),
        ("5f00::1", Reserved),
        ("fc00::1", Private),
        ("fd00:ec2::254", Metadata),
        ("fd00:ec2::23", Metadata),
        ("fd20:ce::254", Metadata),
        ("fd12:3456::1", Private),
        ("fe80::1", LinkLocal),
        ("febf::1", LinkLocal),
        ("fec0::1", Private),
        ("ff02::1", Multicast),
    ];
    for (text, expected) in cases {
        assert_eq!(class(text), Some(expected), "{text}");
    }
}

#[test]
fn public_addresses_are_nothing_else() {
    let public = [
        "1.1.1.1",
        "8.8.8.8",
        "99.255.255.255",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "192.167.255.255",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "2002:808:808::1",
        "2001:4860:4860::8888",
        "2001:200::1",
        "2606:4700::1111",
        "2a00::1",
    ];
    for text in public {
        assert_eq!(class(text), None, "{text}");
    }
}

#[test]
fn an_address_has_one_spelling() {
    let one = |text: &str| text.parse::<IpAddr>().unwrap();
    for text in ["127.0.0.1", "8.8.8.8"] {
        assert_eq!(read_literal(text), Literal::Address(one(text)));
    }
    assert_eq!(read_literal("[::1]"), Literal::Address(one("::1")));
    assert_eq!(read_literal("[::ffff:127.0.0.1]"), Literal::Address(one("::ffff:127.0.0.1")));
    let spellings = [
        ("2130706433", "127.0.0.1"),
        ("017700000001", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("0X7F000001", "127.0.0.1"),
        ("127.1", "127.0.0.1"),
        ("127.0.1", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("0x7f.0x0.0x0.0x1", "127.0.0.1"),
        ("0x7f.1", "127.0.0.1"),
        ("127.0.0.0x1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
        ("127.0.0.01", "127.0.0.1"),
        ("0", "0.0.0.0"),
        ("0x", "0.0.0.0"),
        ("%31%32%37.0.0.1", "127.0.0.1"),
        ("%2531%2532%2537.0.0.1", "127.0.0.1"),
        ("127%2e0%2e0%2e1", "127.0.0.1"),
        ("１２７.０.０.１", "127.0.0.1"),
        ("127。0。0。1", "127.0.0.1"),
        ("127｡0｡0｡1", "127.0.0.1"),
        ("①②⑦.⓪.⓪.①", "127.0.0.1"),
        ("127.\u{ad}0.0.1", "127.0.0.1"),
        ("2852039166", "169.254.169.254"),
        ("0xa9fea9fe", "169.254.169.254"),
        ("169.254.43518", "169.254.169.254"),
        ("[::1", "[::1"),
        ("::1", "::1"),
        ("[fe80::1%25eth0]", "fe80::1"),
        ("[fe80::1%eth0]", "fe80::1"),
        ("fe80::1%eth0", "fe80::1"),
        ("[::1].", "::1"),
    ];
    for (text, address) in spellings {
        match address.parse() {
            Ok(address) => assert_eq!(read_literal(text), Literal::Unclear(Some(address)), "{text}"),
            Err(_) => assert_eq!(read_literal(text), Literal::Neither, "{text}"),
        }
    }
    for text in ["4294967296", "256.1.1.1", "1.2.3.4.5", "1.2.3.4.", "a.1", "example.0x7f", "99999999999999999999999"] {
        assert!(matches!(read_literal(text), Literal::Unclear(_)), "{text}");
    }
    for text in ["", " ", "a b", "a..b", "exam\u{200d}ple.org", "a/b", "user@host", "bücher.example", "host:80"] {
        assert_eq!(read_literal(text), Literal::Neither, "{text}");
    }
    assert_eq!(read_literal(&"a".repeat(2000)), Literal::Neither);
    assert_eq!(read_literal("API.Example.ORG."), Literal::Name("api.example.org".into()));
}

#[test]
fn names_that_only_exist_inside_are_told() {
    let cases = [
        ("localhost", Some(Class::Loopback)),
        ("LOCALHOST.", Some(Class::Loopback)),
        ("a.localhost", Some(Class::Loopback)),
        ("printer.local", Some(Class::Private)),
        ("vault.internal", Some(Class::Private)),
        ("api.default.svc.cluster.local", Some(Class::Private)),
        ("api.default.svc", Some(Class::Private)),
        ("vault", Some(Class::Private)),
        ("metadata", Some(Class::Metadata)),
        ("metadata.google.internal", Some(Class::Metadata)),
        ("Metadata.Google.Internal.", Some(Class::Metadata)),
        ("instance-data.ec2.internal", Some(Class::Metadata)),
        ("api.example", Some(Class::Reserved)),
        ("api.example.com", None),
        ("notlocal", Some(Class::Private)),
        ("evilinternal.com", None),
        ("internal.example.com", None),
        ("xlocalhost.com", None),
    ];
    for (host, expected) in cases {
        assert_eq!(judge_host(host), Ok(expected), "{host}");
    }
    assert_eq!(judge_host("0x7f.1"), Err(AddressError::Spelling));
    assert_eq!(judge_host("a b"), Err(AddressError::Host));
}

#[test]
fn an_allowance_adds_and_never_replaces() {
    let allowance =
        Allowance::parse(&["vault.internal:8200", "127.0.0.1:8200", "10.1.0.0/16", "fd12::/16", "*.corp.example"])
            .unwrap();
    let resolved = |host: &str, port, addresses: &[&str]| {
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        allowance.check_host(host, port).and_then(|()| allowance.check_resolved(host, port, &addresses))
    };
    let allowed: [(&str, u16, &[&str]); 8] = [
        ("vault.internal", 8200, &["10.9.9.9"]),
        ("VAULT.internal.", 8200, &["127.0.0.1"]),
        ("127.0.0.1", 8200, &["127.0.0.1"]),
        ("10.1.2.3", 1, &["10.1.2.3"]),
        ("api.internal", 1, &["10.1.255.255", "::ffff:10.1.0.1"]),
        ("[fd12:1::1]", 1, &["fd12:1::1"]),
        ("a.corp.example", 443, &["192.168.1.1"]),
        ("api.example.com", 443, &["1.1.1.1", "2606:4700::1111"]),
    ];
    for (host, port, addresses) in allowed {
        assert_eq!(resolved(host, port, addresses), Ok(()), "{host}:{port}");
    }
    let refused: [(&str, u16, &[&str], Class); 9] = [
        ("vault.internal", 8201, &["10.9.9.9"], Class::Private),
        ("127.0.0.1", 8201, &["127.0.0.1"], Class::Loopback),
        ("10.2.2.3", 1, &["10.2.2.3"], Class::Private),
        // Rebinding: a public name that leads inside, or one bad address among good ones.
        ("api.example.com", 443, &["10.9.9.9"], Class::Private),
        ("api.example.com", 443, &["1.1.1.1", "127.0.0.1"], Class::Loopback),
        ("api.example.com", 443, &["1.1.1.1", "64:ff9b::a9fe:a9fe"], Class::Metadata),
        // Never, whatever is allowed.
        ("a.corp.example", 443, &["169.254.169.254"], Class::Metadata),
        ("vault.internal", 8200, &["fe80::1"], Class::LinkLocal),
        ("metadata.google.internal", 80, &["10.1.0.1"], Class::Metadata),
    ];
    for (host, port, addresses, class) in refused {
        assert_eq!(resolved(host, port, addresses), Err(AddressError::Class(class)), "{host}:{port}");
    }
    assert_eq!(resolved("api.example.com", 443, &[]), Err(AddressError::Unresolved));
    assert_eq!(resolved("0x7f.1", 8200, &["127.0.0.1"]), Err(AddressError::Spelling));
}

#[test]
fn an_allowance_that_could_not_work_is_refused() {
    use AllowanceError::{Network, Never};
    let cases = [
        ("169.254.169.254", Never(Class::Metadata)),
        ("169.254.169.254:80", Never(Class::Metadata)),
        ("169.254.0.0/16", Never(Class::LinkLocal)),
        ("[fd00:ec2::254]", Never(Class::Metadata)),
        ("metadata.google.internal", Never(Class::Metadata)),
        ("0.0.0.0/0", Network),
        ("::/0", Network),
        ("10.0.0.1/8", Network),
        ("10.0.0.0/33", Network),
        ("10.0.0.0/-1", Network),
        ("10.0.0/8", Network),
        ("fd00::/129", Network),
    ];
    for (entry, expected) in cases {
        assert_eq!(Allowance::parse(&["api.example", entry]).err(), Some((1, expected)), "{entry}");
    }
    for entry in ["0x7f.1", "a b", "*", "https://vault", ""] {
        assert!(Allowance::parse(&[entry]).is_err(), "{entry}");
    }
}
