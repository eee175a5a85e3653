"""docs/licences.md says under which licence each package is that the project installs."""

import sys

import pytest

from bench import licences

AGAIN = "write the table again: uv run --all-extras python -m bench.licences"


@pytest.mark.skipif(sys.platform != "linux", reason="the table is of what Linux installs")
def test_the_table_names_each_package_that_is_installed_with_its_licence() -> None:
    """A package that is not installed here, as those of an extra may be, is not compared."""
    written = licences.table_of(licences.PAGE.read_text("utf-8"))
    found = licences.rows()
    assert len(found) > 40
    for name, row in found.items():
        assert name in written, AGAIN
        # The environment may lack one of the parts that need it.
        (*_, licence, parts, _), (*_, said, all_parts, _) = row.split("|"), written[name].split("|")
        assert licence == said, AGAIN
        assert set(parts.strip().split(", ")) <= set(all_parts.strip().split(", ")), AGAIN


def test_every_dependency_of_the_project_has_a_row() -> None:
    """The table is of an environment with all extras."""
    written = licences.table_of(licences.PAGE.read_text("utf-8"))
    for part, requirements in licences._parts().items():
        for requirement in requirements:
            name = licences.canonicalize_name(requirement.name)
            assert name == licences.PROJECT or name in written, (part, name, AGAIN)
