"""Subject Photos in real graphs: a folder, a list of files, what is cached, and what is refused at the door."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hosting import Server, comfyui_path, executed
from PIL import Image
from subject_files import RED, scene, write_subject
from toy_graphs import node, words

pytestmark = pytest.mark.usefixtures("comfyui")
BELOW = "(files below)"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Server]:
    if not (comfyui_path() / "main.py").is_file():
        pytest.skip("no ComfyUI here")
    with Server(tmp_path_factory.mktemp("photos")) as running:
        write_subject(running.folder / "input" / "my dog")
        yield running


def graph(folder: str = BELOW, files: str = "", **more: object) -> dict:
    """Subject Photos -> Concept -> Prompt Set, and a view of the report, the photos and the masks."""
    given = {"folder": folder, "files": files, "held_out": 0, "crop": "subject", "size": 128, **more}
    parts = {"references": ["photos", 0], "masks": ["photos", 1], "held_out": ["photos", 2], "mask_shows": "subject"}
    return {
        "photos": node("SubjectPhotos", **given),
        "concept": node("Concept", identifier="sks", class_noun="dog", **parts),
        "prompts": node(
            "PromptSet", concept=["concept", 0], preset="objects", text="", held_out_text="", held_out_share=0.4, seed=0
        ),
        "shown": words(["prompts", 1]),
        "report": words(["photos", 3]),
        "seen": {"class_type": "PreviewImage", "inputs": {"images": ["photos", 0]}},
    }


def pictures(server: Server, shown: dict) -> list[np.ndarray]:
    found = []
    for one in shown["images"]:
        with Image.open(server.folder / one["type"] / one["subfolder"] / one["filename"]) as picture:
            found.append(np.asarray(picture.convert("RGB")))
    return found


def red(pixel: np.ndarray) -> bool:
    return bool(np.abs(pixel.astype(int) - RED).max() < 25)


def refusal(server: Server, wrong: dict) -> str:
    """What the host says where it refuses a graph before it runs."""
    status, answer = server.post("/prompt", {"prompt": wrong})
    assert status == 400
    return answer["node_errors"]["photos"]["errors"][0]["details"]


def test_a_folder_becomes_references_masks_and_held_out_photos(server: Server):
    done = server.run(graph("my dog", held_out=1))["outputs"]
    said = done["photos"]["text"][0].split("\n")
    assert said[0] == "4 photos of 128x128: 3 references, held out: c.jpg."
    assert said[1].startswith("Masks cover ") and "a.png (a_mask.png)" in said[1] and "(alpha)" in said[1]
    assert "Hündchen 犬.png" in said[2] and said[2].startswith("Without a mask, so all of the photo counts")
    for skipped in (
        "clip.mp4 (a film, no picture)", "notes.txt (no picture)", "page.jpg (cannot be read: it is a web page, not a",
        "tiny.png (too small: 40x30 pixels", "zwilling.png (the same file as a.png)",
    ):  # fmt: skip
        assert skipped in said[3]
    assert done["report"]["text"][0] == "\n".join(said)
    first, *others = pictures(server, done["seen"])
    assert len(others) == 2 and first.shape == (128, 128, 3)
    concept = done["concept"]["text"][0]
    assert concept.startswith("3 photos, masks cover ") and "Mask 1 is white everywhere" in concept
    assert len(pictures(server, done["concept"])) == 3
    (sheet,) = pictures(server, done["photos"])
    assert sheet.shape[1] > 600 and sheet.std() > 20


def test_files_are_read_in_order_of_name_upright_and_about_the_subject(server: Server):
    """As the upload route names them, and as Windows writes them. The subject of a.png is at its right border."""
    files = "my dog\\c.jpg\r\nmy dog/a.png\nmy dog/a_mask.png\n\n"
    done = server.run(graph(files=files))["outputs"]
    assert done["photos"]["text"][0].startswith("2 photos of 128x128: 2 references.")
    masked, turned = pictures(server, done["seen"])
    assert red(masked[64, 64]), "the square is around the subject"
    # Stored 128 x 96 with the disc around (60, 40); turned clockwise it is 96 x 128, with the disc around (55, 60).
    assert red(turned[round((60 - 16) * 128 / 96), round(55 * 128 / 96)])


def test_photos_without_masks_give_none(server: Server):
    done = server.run(graph(files="my dog/c.jpg"))["outputs"]
    assert "No masks: fidelity compares photos as a whole." in done["photos"]["text"][0]
    assert done["concept"]["text"][0].startswith("1 photo, no masks")


def test_the_uploads_of_the_host_are_found(server: Server):
    """By its own route, twice: the same content keeps its name, another one gets its own."""
    import json
    import urllib.request

    def uploaded(path: Path) -> str:
        edge = "----edge"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'.encode()
        more = f'\r\n--{edge}\r\nContent-Disposition: form-data; name="subfolder"\r\n\r\nsubject_photos\r\n--{edge}--'
        body = head + path.read_bytes() + more.encode()
        kind = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        with urllib.request.urlopen(urllib.request.Request(f"{server.url}/upload/image", body, kind)) as answer:
            found = json.load(answer)
        return f"{found['subfolder']}/{found['name']}"

    folder = server.folder / "input" / "my dog"
    names = [uploaded(folder / name) for name in ("a.png", "a.png", "b cut out.png")]
    assert names == ["subject_photos/a.png", "subject_photos/a.png", "subject_photos/a (1).png"]
    said = server.run(graph(files="\n".join(names)))["outputs"]["photos"]["text"][0]
    assert said.startswith("2 photos of 128x128: 2 references.") and "a (1).png (alpha)" in said


def test_only_changed_contents_run_it_again(server: Server):
    folder = server.folder / "input" / "cached"
    write_subject(folder)
    assert "photos" in executed(server.run(graph("cached")))
    (folder / "a.png").touch()
    assert "photos" not in executed(server.run(graph("cached")))
    scene((240, 160), (160, 40, 210, 120), 9)[1].save(folder / "a_mask.png")
    assert "photos" in executed(server.run(graph("cached"))), "a mask counts too"


def test_new_folders_are_offered(server: Server):
    shutil.copytree(server.folder / "input" / "my dog", server.folder / "input" / "cats" / "10_sks cat")
    (server.folder / "input" / "empty").mkdir()
    definition = server.get("/object_info/DBDPO_SubjectPhotos")["DBDPO_SubjectPhotos"]["input"]["required"]["folder"]
    options = definition[0] if isinstance(definition[0], list) else definition[1]["options"]
    assert options[0] == BELOW and {"my dog", "cats/10_sks cat"} <= set(options)
    assert "cats" not in options and "empty" not in options
    said = server.run(graph("cats/10_sks cat", files="example.png"))["outputs"]["photos"]["text"][0]
    assert said.startswith("4 photos") and said.endswith("so the names in files are not used.")


@pytest.mark.parametrize(
    ("folder", "files", "said"),
    [
        (BELOW, " \n", "there are no photos: files is empty, and no folder is chosen. Drop photos"),
        ("", "", "folder '' is no folder inside ComfyUI's input folder"),
        (BELOW, "../secret.png", "files names ../secret.png, which is not inside ComfyUI's input folder"),
        (BELOW, "/etc/passwd", "files names /etc/passwd, which is not inside"),
        (BELOW, "C:\\photos\\a.png", "files names C:\\photos\\a.png, which is not inside"),
        (BELOW, "..\\..\\a.png", "files names ..\\..\\a.png, which is not inside"),
        (BELOW, "a\0b.png", "which is not inside"),
        (BELOW, "x" * 5000, "which is not inside"),
        (BELOW, "gone.png\nmy dog/a.png", "files names gone.png, but there is no such file"),
        (BELOW, "my dog/notes.txt", "none of the files can be used as a photo of the subject: notes.txt (no picture)"),
        ("nowhere", "", "folder 'nowhere' is no folder inside ComfyUI's input folder"),
        ("..", "", "folder '..' is no folder inside"),
        ("bare", "", "holds no reference photos"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(server: Server, folder: str, files: str, said: str):
    (server.folder / "input" / "bare").mkdir(exist_ok=True)
    assert said in refusal(server, graph(folder, files))


def test_a_link_out_of_the_input_folder_is_refused(server: Server, tmp_path: Path):
    write_subject(tmp_path / "outside")
    (server.folder / "input" / "linked").symlink_to(tmp_path / "outside", target_is_directory=True)
    assert "which is not inside" in refusal(server, graph(files="linked/a.png"))
    assert "is no folder inside" in refusal(server, graph("linked"))


@pytest.mark.parametrize(
    ("folder", "files", "more", "said"),
    [
        (
            "my dog",
            "",
            {"held_out": 4},
            "held_out is 4, but there are 4 photos, so no reference photo would remain. Set",
        ),
        (BELOW, "my dog/tiny.png\nmy dog/page.jpg", {}, "none of the files can be used as a photo of the subject: "),
        ("my dog", "", {"size": 100}, "size is 100: it must be a whole number"),
    ],
)
def test_what_opened_photos_show_is_refused_by_the_node(server: Server, folder, files, more, said):
    found = server.post("/prompt", {"prompt": graph(folder, files, **more)})
    assert found[0] == 200
    done = server.wait(found[1]["prompt_id"])
    assert said in dict(done["status"]["messages"])["execution_error"]["exception_message"]
