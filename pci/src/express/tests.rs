use super::slot::{PRESENCE_DETECT, SLOT_STATUS};
use super::*;
use crate::link::LinkWidth;
use crate::testing::{Model, ids, read_u16, read_u32, rule, walk, write, write_u16};
use crate::{Effect, Function, ResetKind};

const FULL: Link = Link {
    speed: LinkSpeed::Gt64,
    width: LinkWidth::X16,
};
const CARD: Link = Link {
    speed: LinkSpeed::Gt32,
    width: LinkWidth::X8,
};

fn root_port() -> (ConfigSpace, PciExpress) {
    let mut space = ConfigSpace::bridge(ids(0x7075, 0x06_04_00));
    let shape = ExpressConfig::port(DevicePortType::RootPort, FULL, 7);
    let slot = Some(Slot {
        number: 3,
        hot_plug: true,
    });
    let express = PciExpress::new(
        &mut space,
        ExpressConfig {
            slot,
            interrupt: 1,
            ..shape
        },
    );
    (space, express)
}

fn send(
    space: &mut ConfigSpace,
    express: &PciExpress,
    register: u16,
    value: u16,
) -> Option<ExpressEvent> {
    let mut out: Vec<Effect> = Vec::new();
    let written = space.write(express.offset() + register, &value.to_le_bytes(), &mut out)?;
    express.written(space, &written)
}

#[test]
fn endpoint_follows_its_access_rules() {
    let mut space = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
    let express = PciExpress::new(&mut space, ExpressConfig::endpoint(CARD));
    walk(
        &mut space,
        express.offset(),
        &[
            rule("header, capabilities", 0x00, 0x0002_0010, 0, 0),
            rule("device capabilities", 0x04, 0x1000_8fe2, 0, 0),
            rule(
                "device control and status",
                0x08,
                0x2810,
                0x79ff,
                0x000f_0000,
            ),
            rule("link capabilities", 0x0c, 0x0040_0085, 0, 0),
            rule("link control and status", 0x10, 0x1085_0000, 0xcb, 0),
            rule("slot capabilities, none", 0x14, 0, 0, 0),
            rule("slot control and status, none", 0x18, 0, 0, 0),
            rule("root control and capabilities, none", 0x1c, 0, 0, 0),
            rule("root status, none", 0x20, 0, 0, 0),
            rule("device capabilities 2", 0x24, 0x0001_0010, 0, 0),
            rule("device control 2", 0x28, 0, 0x10, 0),
            rule("link capabilities 2", 0x2c, 0x3e, 0, 0),
            rule(
                "link control and status 2",
                0x30,
                0x001e_0005,
                0xf,
                0x0020_0000,
            ),
            rule("slot capabilities 2", 0x34, 0, 0, 0),
            rule("slot control and status 2", 0x38, 0, 0, 0),
        ],
    );
}

#[test]
fn root_port_follows_its_access_rules() {
    let (mut space, express) = root_port();
    walk(
        &mut space,
        express.offset(),
        &[
            rule("header, capabilities", 0x00, 0x0342_0010, 0, 0),
            rule("device capabilities", 0x04, 0x0000_8022, 0, 0),
            rule(
                "device control and status",
                0x08,
                0x2810,
                0x79ff,
                0x000f_0000,
            ),
            rule("link capabilities", 0x0c, 0x0770_0106, 0, 0),
            rule(
                "link control and status",
                0x10,
                0x1001_0000,
                0xcd3,
                0xc000_0000,
            ),
            rule("slot capabilities", 0x14, 0x0018_25ff, 0, 0),
            rule(
                "slot control and status",
                0x18,
                0x0020_03c0,
                0x17ff,
                0x011f_0000,
            ),
            rule("root control and capabilities", 0x1c, 0, 0xf, 0),
            rule("root status", 0x20, 0, 0, 0x0001_0000),
            rule("device capabilities 2", 0x24, 0x0001_0030, 0, 0),
            rule("device control 2", 0x28, 0, 0x30, 0),
            rule("link capabilities 2", 0x2c, 0x7e, 0, 0),
            rule("link control and status 2", 0x30, 0x6, 0xf, 0x0020_0000),
        ],
    );
}

#[test]
fn switch_ports_say_what_they_are() {
    for (port_type, code) in [
        (DevicePortType::UpstreamPort, 5),
        (DevicePortType::DownstreamPort, 6),
    ] {
        let mut space = ConfigSpace::bridge(ids(0xa128, 0x06_04_00));
        let express = PciExpress::new(&mut space, ExpressConfig::port(port_type, CARD, 2));
        assert_eq!(
            read_u16(&space, express.offset() + CAPABILITIES),
            2 | code << 4
        );
        assert_eq!(
            express.link(&space).is_some(),
            port_type == DevicePortType::UpstreamPort
        );
        let reports =
            read_u32(&space, express.offset() + LINK_CAPABILITIES) & LINK_ACTIVE_REPORTING != 0;
        assert_eq!(reports, port_type == DevicePortType::DownstreamPort);
    }
}

#[test]
fn an_integrated_endpoint_has_no_link() {
    let mut space = ConfigSpace::endpoint(ids(0x1042, 0x01_80_00));
    let express = PciExpress::new(&mut space, ExpressConfig::root_complex_endpoint());
    assert_eq!(read_u16(&space, express.offset() + CAPABILITIES), 0x92);
    walk(
        &mut space,
        express.offset(),
        &[
            rule("link capabilities", 0x0c, 0, 0, 0),
            rule("link control and status", 0x10, 0, 0, 0),
            rule("link capabilities 2", 0x2c, 0, 0, 0),
            rule("link control and status 2", 0x30, 0, 0, 0),
        ],
    );
    assert_eq!(express.link(&space), None);
}

#[test]
fn a_port_trains_to_what_both_ends_can() {
    let (mut space, mut express) = root_port();
    assert_eq!(express.link(&space), None);
    express.set_link(&mut space, Some(CARD));
    assert_eq!(express.link(&space), Some(CARD));
    assert_eq!(read_u16(&space, express.offset() + LINK_STATUS), 0x3085);
    let present = read_u16(&space, express.offset() + SLOT_STATUS) & PRESENCE_DETECT;
    assert_eq!(present, PRESENCE_DETECT);
    space.reset(ResetKind::Conventional);
    assert_eq!(
        express.link(&space),
        Some(CARD),
        "the card does not go with a reset"
    );
    express.set_link(&mut space, None);
    assert_eq!(express.link(&space), None);
    let present = read_u16(&space, express.offset() + SLOT_STATUS) & PRESENCE_DETECT;
    assert_eq!(present, 0);
}

#[test]
fn a_partner_held_in_reset_takes_the_link_down_until_it_is_let_go() {
    let (mut space, mut express) = root_port();
    express.set_link(&mut space, Some(CARD));
    assert_eq!(express.hold_partner(&mut space, true), None);
    assert_eq!(express.link(&space), None);
    assert_eq!(space.secondary_reset(), Some(ResetKind::Conventional));
    assert!(!space.is_secondary_reachable());
    // Software cannot train it meanwhile.
    send(&mut space, &express, LINK_CONTROL, 1 << 5);
    assert_eq!(express.link(&space), None);
    // A hot-plug interrupt tells that the link has come up: Data Link Layer State Changed (7.5.3.11).
    send(&mut space, &express, 0x18, 1 << 12 | 1 << 5);
    send(&mut space, &express, SLOT_STATUS, 1 << 8);
    let event = express.hold_partner(&mut space, false);
    assert_eq!(event, Some(ExpressEvent::Interrupt));
    assert_eq!(express.link(&space), Some(CARD));
    assert!(space.is_secondary_reachable());
}

#[test]
fn link_disable_takes_the_link_down_until_cleared() {
    let (mut space, mut express) = root_port();
    express.set_link(&mut space, Some(CARD));
    assert_eq!(send(&mut space, &express, LINK_CONTROL, LINK_DISABLE), None);
    assert_eq!(express.link(&space), None);
    assert!(!space.is_secondary_reachable());
    assert_eq!(
        send(&mut space, &express, LINK_CONTROL, LINK_DISABLE | 1 << 5),
        None
    );
    assert_eq!(express.link(&space), None, "a disabled link does not train");
    send(&mut space, &express, LINK_CONTROL, 0);
    assert_eq!(express.link(&space), Some(CARD));
    assert!(space.is_secondary_reachable());
}

#[test]
fn retraining_goes_to_the_target_speed_and_says_so() {
    let (mut space, mut express) = root_port();
    express.set_link(&mut space, Some(CARD));
    send(&mut space, &express, LINK_CONTROL_2, 3);
    assert_eq!(express.link(&space), Some(CARD), "not before it is told to");
    assert_eq!(send(&mut space, &express, LINK_CONTROL, 1 << 5), None);
    assert_eq!(
        express.link(&space),
        Some(Link {
            speed: LinkSpeed::Gt8,
            ..CARD
        })
    );
    assert_eq!(
        read_u16(&space, express.offset() + LINK_CONTROL) & 1 << 5,
        0,
        "retrain reads as zero"
    );
    assert_ne!(
        read_u16(&space, express.offset() + LINK_STATUS) & BANDWIDTH_STATUS,
        0
    );
    write_u16(&mut space, express.offset() + LINK_STATUS, BANDWIDTH_STATUS);
    assert_eq!(
        read_u16(&space, express.offset() + LINK_STATUS) & BANDWIDTH_STATUS,
        0
    );
    send(&mut space, &express, LINK_CONTROL_2, 0xf);
    let told = send(
        &mut space,
        &express,
        LINK_CONTROL,
        BANDWIDTH_INTERRUPT_ENABLE | 1 << 5,
    );
    assert_eq!(told, Some(ExpressEvent::Interrupt));
    assert_eq!(
        express.link(&space),
        Some(CARD),
        "a target that does not exist is no limit"
    );
}

#[test]
fn a_port_without_a_partner_does_not_train() {
    let (mut space, express) = root_port();
    send(
        &mut space,
        &express,
        LINK_CONTROL,
        BANDWIDTH_INTERRUPT_ENABLE | 1 << 5,
    );
    assert_eq!(express.link(&space), None);
    // Linux takes this bit without an active link for a broken link.
    assert_eq!(
        read_u16(&space, express.offset() + LINK_STATUS) & BANDWIDTH_STATUS,
        0
    );
}

#[test]
fn function_level_reset_is_asked_for_by_endpoints_only() {
    let mut space = ConfigSpace::endpoint(ids(0x0d93, 0x05_02_10));
    let express = PciExpress::new(&mut space, ExpressConfig::endpoint(CARD));
    assert_eq!(send(&mut space, &express, DEVICE_CONTROL, 0x7fff), None);
    assert_eq!(
        send(&mut space, &express, DEVICE_CONTROL, 0x8000),
        Some(ExpressEvent::FunctionLevelReset)
    );
    assert_eq!(
        read_u16(&space, express.offset() + DEVICE_CONTROL),
        0,
        "reads as zero"
    );
    let (mut space, express) = root_port();
    assert_eq!(send(&mut space, &express, DEVICE_CONTROL, 0x8000), None);
}

#[test]
fn function_level_reset_keeps_the_link_and_loses_the_bars() {
    let mut model = Model::endpoint();
    let mut out = Vec::new();
    let control = model.express.offset() + DEVICE_CONTROL;
    let link_control = model.express.offset() + LINK_CONTROL;
    model.config_write(0x10, &[0, 0, 0x12, 0xc0], &mut out);
    model.config_write(0x04, &[0x06, 0], &mut out);
    model.config_write(control, &[0x30, 0x28], &mut out);
    model.config_write(link_control, &[0x40, 0], &mut out);
    assert!(model.config.bar(0).is_some());
    out.clear();
    model.config_write(control + 1, &[0x80], &mut out);
    assert_eq!(
        out.last(),
        Some(&crate::testing::ModelEffect::Reset(
            ResetKind::FunctionLevel
        ))
    );
    assert_eq!(read_u16(&model.config, 0x04), 0);
    assert_eq!(read_u32(&model.config, 0x10), 0xc);
    assert_eq!(read_u16(&model.config, link_control), 0x40);
    model.config.reset(ResetKind::SecondaryBus);
    assert_eq!(read_u16(&model.config, link_control), 0);
    write(&mut model.config, link_control, &[0]);
}
