//! What the documents say, held against the repository: text against text, in no time.
//!
//! Each test reports every place that is wrong, with its file, so that the fix needs no
//! search.

use std::fs;
use std::path::{Path, PathBuf};

use hookward::domain::profile::Profiles;

/// A document.
struct Page {
    /// From the root of the repository.
    path: PathBuf,
    text: String,
}

impl Page {
    fn read(path: &str) -> Page {
        let text = fs::read_to_string(root().join(path));
        Page { path: path.into(), text: text.expect("the document is there") }
    }

    /// The text without blocks of code, where nothing is a link or a name.
    fn prose(&self) -> String {
        let mut code = false;
        let mut prose = String::new();
        for line in self.text.lines() {
            if line.trim_start().starts_with("```") {
                code = !code;
            } else if !code {
                prose.push_str(line);
                prose.push('\n');
            }
        }
        prose
    }

    /// What stands between backticks in the prose.
    fn names(&self) -> Vec<String> {
        self.prose().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// The blocks of code in this language.
    fn blocks(&self, language: &str) -> Vec<String> {
        let opening = format!("```{language}\n");
        let bodies = self.text.split(opening.as_str()).skip(1);
        bodies.filter_map(|rest| rest.split("\n```").next()).map(str::to_owned).collect()
    }

    /// What its headings are called in links.
    fn anchors(&self) -> Vec<String> {
        let headings = self.text.lines().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }
}

/// As GitHub does it.
fn anchor(heading: &str) -> String {
    let kept = |letter: &char| letter.is_alphanumeric() || " -_".contains(*letter);
    heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Markdown file of the repository, but for what tools and builds leave behind.
fn pages() -> Vec<Page> {
    let mut folders = vec![PathBuf::new()];
    let mut pages = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("the repository is readable") {
            let entry = entry.expect("the repository is readable");
            let name = entry.file_name().into_string().expect("names are UTF-8");
            let path = folder.join(&name);
            let kind = entry.file_type().expect("the repository is readable");
            if kind.is_dir()
                && !name.starts_with('.')
                && !["target", "node_modules"].contains(&&*name)
            {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                let text = fs::read_to_string(root().join(&path)).expect("documents are UTF-8");
                pages.push(Page { path, text });
            }
        }
    }
    assert!(5 < pages.len(), "no documents found: is this test looking in the right place?");
    pages
}

fn report(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Whether `text` defines a function of this name.
fn defines(text: &str, function: &str) -> bool {
    text.split("fn ")
        .skip(1)
        .any(|rest| rest.strip_prefix(function).is_some_and(|rest| rest.starts_with(['(', '<'])))
}

#[test]
fn every_function_that_is_named_exists() {
    let mut broken = Vec::new();
    let mut count = 0;
    for page in pages() {
        for name in page.names() {
            let Some((file, function)) = name.split_once(".rs::") else { continue };
            count += 1;
            let top = if file.starts_with("tests/") { "" } else { "src/" };
            let file = format!("{top}{file}.rs");
            match fs::read_to_string(root().join(&file)) {
                Ok(text) if defines(&text, function) => {}
                Ok(_) => broken.push(format!("{}: {file} has no {function}", page.path.display())),
                Err(_) => broken.push(format!("{}: there is no {file}", page.path.display())),
            }
        }
    }
    assert!(20 < count, "the architecture names its functions");
    report(&broken, "documents name functions that exist");
}

/// The floors are kept by `tests/tidy.rs`; the architecture shows them.
#[test]
fn the_floors_are_shown_as_they_are() {
    let page = Page::read("docs/ARCHITECTURE.md");
    let tidy = fs::read_to_string(root().join("tests/tidy.rs")).expect("the rules are there");
    let floors = tidy.split("const FLOORS").nth(1).and_then(|rest| rest.split("\n];").next());
    let floors = floors.expect("it has its floors").lines().filter(|line| line.contains("&[\""));
    let mut broken = Vec::new();
    let mut count = 0;
    for (number, line) in floors.enumerate() {
        count += 1;
        let row = page.text.lines().find(|row| row.starts_with(&format!("| {number} | ")));
        let row = row.unwrap_or_default();
        for room in line.split('"').skip(1).step_by(2) {
            let shown = [format!("`{room}/`"), format!("`{room}.rs`")];
            if !shown.iter().any(|name| row.contains(name)) {
                broken.push(format!("floor {number} does not show {room}"));
            }
        }
    }
    assert!(5 < count, "there are floors");
    report(&broken, "docs/ARCHITECTURE.md shows the floors of tests/tidy.rs");
}

#[test]
fn every_file_that_is_named_exists() {
    let mut broken = Vec::new();
    for page in pages() {
        for name in page.names() {
            let plain = |letter: char| letter.is_ascii_alphanumeric() || "/_.-".contains(letter);
            let is_path = name.contains('/') && name.chars().all(plain) && !name.contains("..");
            let from_root = ["src/", "tests/", "docs/", "proto/", "profiles/", "catalog/", ".ci/"];
            let named = from_root.iter().any(|folder| name.starts_with(folder));
            let rust = Path::new(&name).extension().is_some_and(|extension| extension == "rs");
            let source = is_path && rust && !named;
            let path = if source { format!("src/{name}") } else { name.clone() };
            if is_path && (named || source) && !root().join(&path).exists() {
                broken.push(format!("{}: there is no {name}", page.path.display()));
            }
        }
    }
    report(&broken, "documents name files that exist");
}

#[test]
fn every_link_to_a_file_leads_somewhere() {
    let pages = pages();
    let mut broken = Vec::new();
    for page in &pages {
        for rest in page.prose().split("](").skip(1) {
            let Some(link) = rest.split(')').next() else { continue };
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').map_or((link, None), |(a, b)| (a, Some(b)));
            let folder = page.path.parent().unwrap_or(Path::new(""));
            let target = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            let found = root().join(&target).canonicalize();
            let anchored = match (&found, heading) {
                (Err(_), _) => false,
                (Ok(_), None) => true,
                (Ok(found), Some(heading)) => pages.iter().any(|other| {
                    root().join(&other.path).canonicalize().is_ok_and(|path| path == *found)
                        && other.anchors().iter().any(|anchor| anchor == heading)
                }),
            };
            if !anchored {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    report(&broken, "links between documents lead somewhere");
}

#[test]
fn every_promise_has_its_test_module() {
    let page = Page::read("docs/GUARANTEES.md");
    let main = fs::read_to_string(root().join("tests/it/main.rs")).expect("the tests are there");
    let promises = page.text.split("\n## Promises\n").nth(1).expect("it has promises");
    let promises = promises.split("\n## ").next().expect("split gives one part at least");
    let mut broken = Vec::new();
    let mut count = 0;
    for promise in promises.split("\n### ").skip(1) {
        count += 1;
        let title = promise.lines().next().unwrap_or_default();
        let kept = promise.split("\nKept by ").nth(1).unwrap_or_default();
        let modules: Vec<&str> = kept
            .split("](../tests/it/")
            .skip(1)
            .filter_map(|rest| rest.split_once(".rs)").map(|(module, _)| module))
            .collect();
        if modules.is_empty() {
            broken.push(format!("{title}: no module"));
        }
        for module in modules {
            if !main.contains(&format!("\nmod {module};")) {
                broken.push(format!("{title}: tests/it/main.rs has no mod {module}"));
            }
        }
    }
    assert!(9 <= count, "the promises are numbered headings");
    report(&broken, "every promise names a test module that runs");
}

#[test]
fn the_readme_has_its_two_commands_and_a_tour_that_runs() {
    let page = Page::read("README.md");
    let blocks = page.blocks("sh");
    for command in ["cargo run --release -- demo", "cargo test"] {
        assert!(blocks.iter().any(|block| block == command), "a block with {command} alone");
    }
    for mark in ["<!-- run -->", "<!-- run until: ", "<!-- run beside, until: "] {
        assert!(page.text.contains(mark), "the tour has {mark}, which .ci/readme runs");
    }
    let signature = "<!-- beside shows: signature ✓ verified (webhook-signature) -->";
    assert!(page.text.contains(signature), "the tour checks a signature");
}

#[test]
fn the_example_of_a_profile_is_one() {
    let page = Page::read("docs/PROFILES.md");
    let examples = page.blocks("toml");
    assert_eq!(examples.len(), 1);
    let entries = vec![("lab-results.toml".to_owned(), examples[0].clone())];
    let profiles = Profiles::with_folder(entries).expect("the example is a profile");
    assert!(profiles.get("lab-results").is_some());
}

/// The keys are the fields of the tables that a file is read into.
#[test]
fn every_key_of_a_profile_is_explained_and_used_in_the_example() {
    let page = Page::read("docs/PROFILES.md");
    let tables = fs::read_to_string(root().join("src/domain/profile/file.rs"));
    let tables = tables.expect("the tables are there");
    let fields = tables.lines().filter_map(|line| line.trim().strip_prefix("pub(super) "));
    let keys = fields.filter_map(|field| field.split_once(": ")).map(|(key, _)| key);
    let mut broken = Vec::new();
    let mut count = 0;
    for key in keys.map(|key| key.trim_start_matches('_')) {
        count += 1;
        let explained =
            page.text.contains(&format!("`{key}`")) || page.text.contains(&format!("`[{key}]`"));
        if !explained {
            broken.push(format!("{key} is not explained"));
        }
        let used = [format!("\n{key} = "), format!("\n[{key}]")];
        if !used.iter().any(|text| page.text.contains(text)) {
            broken.push(format!("{key} is not in the example"));
        }
    }
    assert!(20 < count, "the tables have their fields");
    report(&broken, "docs/PROFILES.md tells every key");
}

#[test]
fn decisions_are_listed_and_dated() {
    let list = Page::read("docs/decisions/README.md");
    let mut broken = Vec::new();
    for page in pages() {
        let is_decision =
            page.path.starts_with("docs/decisions") && !page.path.ends_with("README.md");
        if !is_decision {
            continue;
        }
        let name = page.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !list.text.contains(&format!("({name})")) {
            broken.push(format!("{name} is not in the list"));
        }
        for part in ["\nDate: 20", "\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
            if !page.text.contains(part) {
                broken.push(format!("{name} lacks {:?}", part.trim()));
            }
        }
    }
    report(&broken, "every decision has its parts and its line in the list");
}
