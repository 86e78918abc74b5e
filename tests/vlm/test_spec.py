"""A spec is parsed and formatted in one place, and error messages name the spec."""

from pathlib import Path

import pytest

from vlm.spec import FORMS, Spec, SpecError, forms, relocated
from vlm.zoo import VARIANTS, ZOO

FOLDERS = ("open_clip:local-dir:a/b", "hf:local-dir:/a/b", "hf:./b", "hf:../b", "hf:/a/b", "hf:~/b", "embeddings:a/b")
HUB = ("hf:google/siglip", "hf:google/siglip@main", "open_clip:hf-hub:a/b", "open_clip:hf-hub:a/b@v1")
REMOTE = ("open_clip:ViT-B-32/openai", *HUB, "demo:emoji-clip", *ZOO)


@pytest.mark.parametrize("text", [text for text in (*FOLDERS, *REMOTE) if text not in ZOO])
def test_a_spec_is_written_as_it_was_read(text: str) -> None:
    spec = Spec.parse(text)
    spec.check()
    assert str(spec) == f"{spec}" == text


@pytest.mark.parametrize("name", ZOO)
def test_a_short_name_is_read_as_the_spec_that_it_stands_for(name: str) -> None:
    spec = Spec.parse(name)
    spec.check()
    assert str(spec) == ZOO[name].spec
    assert spec.repository() == (ZOO[name].spec.removeprefix("hf:"), None)


@pytest.mark.parametrize("text", ["", "clap", "hf", "hf:", "embeddings:", "blip:somebody/model"])
def test_the_error_of_an_unknown_spec_lists_every_form(text: str) -> None:
    with pytest.raises(SpecError) as caught:
        Spec.parse(text).check()
    assert str(caught.value) == (
        "must be demo:NAME, open_clip:NAME/PRETRAINED, open_clip:hf-hub:REPOSITORY[@REVISION], "
        "open_clip:local-dir:PATH, hf:REPOSITORY[@REVISION], hf:local-dir:PATH, embeddings:PATH, clip, siglip, "
        "siglip2 or aimv2"
    )


def test_the_error_of_an_unknown_demo_model_lists_the_variants() -> None:
    with pytest.raises(SpecError, match=r"^demo models are demo:emoji-clip and demo:emoji-siglip$"):
        Spec.parse("demo:emoji").check()
    assert [Spec.parse(f"demo:{variant}").variant for variant in VARIANTS] == ["emoji-clip", "emoji-siglip"]
    assert all(Spec.parse(text).variant is None for text in FOLDERS)


def test_the_forms_of_some_kinds_leave_the_others_out() -> None:
    assert set(forms(*FORMS)) - set(forms("open_clip", "hf")) == {"demo:NAME", "embeddings:PATH"}


def test_paths_and_names_are_distinguished_by_their_form() -> None:
    assert [Spec.parse(text).path for text in FOLDERS] == ["a/b", "/a/b", "./b", "../b", "/a/b", "~/b", "a/b"]
    assert [Spec.parse(text).path for text in REMOTE] == [None] * len(REMOTE)
    assert Spec.parse("open_clip:/a").path is None  # open_clip takes a folder only as local-dir:PATH
    assert [Spec.parse(text).is_vectors for text in FOLDERS] == [False] * 6 + [True]


def test_a_folder_of_a_library_is_a_spec() -> None:
    assert str(Spec.of_folder("open_clip", Path("/store/models/a"))) == "open_clip:local-dir:/store/models/a"


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("open_clip:local-dir:a/b", "open_clip:local-dir:/study/a/b"),
        ("hf:local-dir:a", "hf:local-dir:/study/a"),
        ("hf:local-dir:/a", "hf:local-dir:/a"),
        ("hf:./a", "hf:local-dir:/study/a"),
        ("hf:../a", "hf:local-dir:/study/../a"),
        ("embeddings:a", "embeddings:/study/a"),
        ("embeddings:/a/", "embeddings:/a"),
    ],
)
def test_the_path_of_a_spec_is_changed_and_its_kind_stays(text: str, there: str) -> None:
    assert relocated(text, lambda path: str(Path("/study") / path)) == there


@pytest.mark.parametrize("text", [*REMOTE, "hf:/a/b", "hf:~/b", "clap", "", "demo:emoji"])
def test_a_spec_without_a_path_of_the_study_stays_as_it_is_written(text: str) -> None:
    assert relocated(text, lambda path: "/elsewhere") == text


def test_a_repository_may_have_a_revision() -> None:
    assert Spec.parse("hf:a/b@v1").repository() == ("a/b", "v1")
    assert Spec.parse("hf:a@").repository() == ("a", None)
    for rest in ("a/b/c", "some body/model", "@main"):
        with pytest.raises(SpecError, match=rf"model spec hf:{rest}: must be hf:REPOSITORY\[@REVISION\] or hf:local"):
            Spec("hf", rest).repository()


def test_a_repository_of_either_library_is_on_the_hub() -> None:
    assert [text for text in (*FOLDERS, *REMOTE) if Spec.parse(text).on_hub] == [*HUB, *ZOO]
    assert Spec.parse("open_clip:hf-hub:a/b@v1").repository() == ("a/b", "v1")
    assert str(Spec.parse("open_clip:hf-hub:a/b@v1").with_revision("f" * 40)) == f"open_clip:hf-hub:a/b@{'f' * 40}"
    assert str(Spec.parse("hf:a/b").with_revision("f" * 40)) == f"hf:a/b@{'f' * 40}"
    with pytest.raises(SpecError, match=r"must be open_clip:NAME/PRETRAINED or open_clip:hf-hub:REPOSITORY"):
        Spec.parse("open_clip:hf-hub:a/b/c").check()


def test_a_spec_of_the_other_library_is_told() -> None:
    assert str(Spec.parse("hf:a/b@v1").as_kind("open_clip")) == "open_clip:hf-hub:a/b@v1"
    assert str(Spec.parse("open_clip:hf-hub:a/b@v1").as_kind("hf")) == "hf:a/b@v1"
    assert str(Spec.parse("hf:./a").as_kind("open_clip")) == "open_clip:local-dir:./a"
    with pytest.raises(SpecError, match=r"open_clip: write open_clip:hf-hub:timm/ViT-B-16-SigLIP$"):
        Spec.parse("hf:timm/ViT-B-16-SigLIP").check()


def test_a_pretrained_model_has_a_name_and_a_tag() -> None:
    assert Spec.parse("open_clip:ViT-B-32/openai").pretrained() == ("ViT-B-32", "openai")
    assert Spec.parse("open_clip:ViT-B-32").pretrained() == ("ViT-B-32", "")
