//! The product's documents and its SSH client against real hosts: see `testkit::hosts`.

use testkit::hosts::{Host, Paper, block_on};

#[test]
fn a_host_becomes_what_its_document_says() {
    block_on(async {
        let paper = Paper::new(1, 0);
        let host = Host::start(&paper, 0);
        host.ready().await;
        assert_eq!(host.ok("hostname; id -un; sudo id -un").await, "k0s-controller-1\nk0rdent\nroot\n");
    });
}
