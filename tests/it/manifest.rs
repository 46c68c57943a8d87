//! The build profiles in Cargo.toml.

#[test]
fn the_deployed_build_optimises_every_package() {
    let manifest = include_str!("../../Cargo.toml");
    // The profile `dist` inherits the settings that `release` has for single packages.
    let packages = manifest.lines().filter_map(|line| line.strip_prefix("[profile.release.package."));
    let inherited: Vec<_> = packages.collect();
    assert!(inherited.len() > 1, "the test found too few settings: {inherited:?}");
    for package in inherited {
        let optimised = format!("[profile.dist.package.{package}\nopt-level = 3\n");
        assert!(manifest.contains(&optimised), "Cargo.toml lacks {optimised}");
    }
}
