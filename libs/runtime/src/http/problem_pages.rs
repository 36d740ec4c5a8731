//! What the kinds of problems mean, for whoever got one: `/problems/`, and a page for each.

use std::fmt::Write;

use poem::{Request, Response};

use super::{problem::Failure, problem_type::ProblemType};

/// The page of the kind that the path names; without a name, the list of all.
pub(super) fn page(request: &Request) -> Result<Response, Failure> {
    let name = request.raw_path_param("name").unwrap_or_default();
    let page = if name.is_empty() {
        list()
    } else {
        let kind = ProblemType::ALL.into_iter().find(|kind| kind.slug() == name);
        of(kind.ok_or_else(|| Failure::not_found("there is no such kind of problem"))?)
    };
    Ok(Response::builder().content_type("text/html; charset=utf-8").body(page))
}

fn list() -> String {
    let mut rows = String::new();
    for kind in ProblemType::ALL {
        let (status, slug, title) = (kind.status(), kind.slug(), kind.title());
        // Writing to a string cannot fail.
        let _ =
            writeln!(rows, "<li>{status} <a href=\"/problems/{slug}\">{slug}</a>: {title}</li>");
    }
    html("Problems", &format!("<ul>\n{rows}</ul>"))
}

fn of(kind: ProblemType) -> String {
    let (meaning, remedy) = (code(kind.meaning()), code(kind.remedy()));
    let facts = format!(
        "<p>{meaning}</p>\n<p>{remedy}</p>\n<p>HTTP status {}, type <code>{}</code></p>\n\
         <p><a href=\"/problems/\">All kinds of problems</a></p>",
        kind.status(),
        kind.uri()
    );
    html(kind.title(), &facts)
}

/// Every second backtick ends what one has begun.
fn code(text: &str) -> String {
    let parts = text.split('`').enumerate();
    parts
        .map(|(at, part)| if at % 2 == 1 { format!("<code>{part}</code>") } else { part.into() })
        .collect()
}

fn html(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head>\n<body>\n<h1>{title}</h1>\n\
         {body}\n</body></html>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_page_that_says_what_to_do() {
        for kind in ProblemType::ALL {
            let page = of(kind);
            for said in [kind.title(), &kind.uri(), &code(kind.remedy()), &code(kind.meaning())] {
                assert!(page.contains(said), "{said}: {page}");
            }
            assert!(kind.meaning().ends_with('.') && kind.remedy().ends_with('.'), "{kind:?}");
            assert!(list().contains(&format!("/problems/{}\"", kind.slug())));
        }
        assert_eq!(code("a `b` c"), "a <code>b</code> c");
    }
}
