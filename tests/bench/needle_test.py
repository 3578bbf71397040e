"""needle.py's questions, table and picture. Measures nothing."""

import json
import xml.etree.ElementTree as ElementTree

import pytest

import needle
import needle_picture


def words(text):
    return len(text.split())


def record(length, depth, number, answer, scheme="plain", key="12345"):
    return {"scheme": scheme, "cell": [length, depth, number], "prompt_tokens": length, "key": key, "answer": answer}


def test_the_key_is_where_the_cell_says():
    places = []
    for cell in needle.cells([900], depths=3, keys=2):
        text, key = needle.question(cell, 1, words)
        assert len(key) == 5 and key.isdigit() and needle.question(cell, 1, words) == (text, key)
        # As long as it may be: what is left has no room for another sentence.
        assert 900 - needle.ROOM - 20 < words(text) <= 900 - needle.ROOM
        places.append(text.index(key) / len(text))
    assert max(places[:2]) < 0.1 and 0.4 < min(places[2:4]) <= max(places[2:4]) < 0.6 and min(places[4:]) > 0.9


def test_each_cell_has_its_own_key():
    cells = needle.cells([512, 1024], depths=11, keys=5)
    assert len(cells) == 110 and cells[0].length == 1024
    assert len({needle.question(cell, 1, words)[1] for cell in cells}) > 100


def test_a_stretched_copy_differs_in_its_length_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 512, "rope_theta": 10000.0}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    with needle.stretched(tmp_path, 4132) as directory:
        with open(f"{directory}/config.json", encoding="utf-8") as file:
            assert json.load(file) == {"max_position_embeddings": 4132, "rope_theta": 10000.0}
        with open(f"{directory}/model.safetensors", "rb") as file:
            assert file.read() == b"weights"


def test_a_key_is_found_when_the_answer_has_it():
    records = [record(512, 0.0, 0, "The pass key is 12345."), record(512, 0.0, 1, "The pass key is 12354."),
               record(512, 1.0, 0, "The pass key is 12345."), record(1024, 0.0, 0, "")]
    assert needle_picture.shares(records) == {"plain": {(512, 0.0): (1, 2), (512, 1.0): (1, 1), (1024, 0.0): (0, 1)}}
    assert needle_picture.markdown(records, 512).splitlines()[2:] == [
        "| plain | 512 (1x) | 67% (2 of 3) | 50% |", "| plain | 1024 (2x) | 0% (0 of 1) | 0% |"]


def test_a_miss_is_not_rounded_away():
    assert needle_picture.percent(1000, 1000) == 100 and needle_picture.percent(999, 1000) == 99
    assert needle_picture.percent(0, 1000) == 0 and needle_picture.percent(1, 1000) == 1


def test_the_picture_shows_every_cell():
    records = [record(length, depth, 0, "12345" if length < 1024 else "", scheme)
               for scheme in ("plain", "YaRN & more") for length in (512, 1024) for depth in (0.0, 0.5, 1.0)]
    root = ElementTree.fromstring(needle_picture.svg(records, 512))
    name = "{http://www.w3.org/2000/svg}"
    texts = [element.text for element in root.iter(name + "text")]
    assert texts.count("100") == 6 and texts.count("0") == 6 and "YaRN & more" in texts and "2x" in texts
    width, height = int(root.get("width")), int(root.get("height"))
    for rectangle in root.iter(name + "rect"):
        x, y = float(rectangle.get("x", 0)), float(rectangle.get("y", 0))
        assert x + float(rectangle.get("width")) <= width and y + float(rectangle.get("height")) <= height
    with pytest.raises(ValueError, match="no results"):
        needle_picture.svg([], 512)


def test_colours_go_from_red_to_green():
    channels = [[int(needle_picture.colour(share)[at:at + 2], 16) for at in (1, 3)] for share in (0, 0.25, 0.5, 0.9, 1)]
    assert channels[0][0] > channels[0][1] and channels[-1][1] > channels[-1][0]
    with pytest.raises(ValueError, match="above 1"):
        needle_picture.colour(1.5)
