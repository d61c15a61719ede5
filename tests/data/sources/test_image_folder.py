"""A folder of pictures with a table: the documented layout loads, and a bad row is named by its number."""

import numpy as np
import pytest
from PIL import Image

from nlx.data import DataError, ImageFiles
from nlx.data.sources.image_folder import folder

SINGLE = """path,noisy,label,split
a.png,cat,cat,train
sub/b.png,dog,cat,
c.png,cat,dog,test
d.png,ant,ant,train
"""
MULTI = """path,noisy
a.png,cat;dog
sub/b.png,
c.png, dog
d.png,ant;ant;
"""


@pytest.fixture
def root(tmp_path):
    """A folder of four pictures, each of one grey."""
    root = tmp_path / "pets"
    (root / "sub").mkdir(parents=True)
    for value, name in enumerate(("a.png", "sub/b.png", "c.png", "d.png")):
        Image.new("RGB", (9, 7), (value, value, value)).save(root / name)
    return root


def load(root, table, **options):
    (root / "labels.csv").write_text(table, encoding="utf-8")
    return folder(root, 4, **options)


def greys(images):
    return images[:, 2, 2, 0].tolist()


def test_single_label(root):
    dataset = load(root, SINGLE)
    assert dataset.name == "pets"
    assert dataset.class_names == ("ant", "cat", "dog")
    assert not dataset.multi_label
    assert dataset.train.inputs.shape == (3, 4, 4, 3)
    assert greys(dataset.train.inputs) == [0, 1, 3]
    assert dataset.train.noisy_label.tolist() == [1, 2, 0]
    assert dataset.train.label.tolist() == [1, 1, 0]
    assert dataset.train.noisy_label.dtype == dataset.train.label.dtype == np.int32
    assert greys(dataset.test.inputs) == [2]
    assert dataset.test.label.tolist() == [2]
    assert dataset.test.noisy_label is None


def test_multi_label(root):
    dataset = load(root, MULTI)
    assert dataset.multi_label
    assert dataset.train.noisy_label.tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 1], [1, 0, 0]]
    assert dataset.train.noisy_label.dtype == np.uint8
    assert dataset.train.label is None
    assert dataset.test is None


def test_a_training_row_without_a_label_is_left_out_and_said(root):
    dataset = load(root, "path,noisy,label,split\na.png,cat,,\nc.png,,cat,\nd.png,oops,cat,test\n")
    assert dataset.train.noisy_label.tolist() == [0]
    assert dataset.class_names == ("cat",)  # noisy labels of test rows take no part
    assert dataset.notes == ("1 training rows without a label are left out, row 3 first",)


def test_either_form_can_be_forced(root):
    dataset = load(root, SINGLE, multi_label=True, name="web")
    assert dataset.name == "web"
    assert dataset.train.noisy_label.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]
    with pytest.raises(DataError, match="row 2 has 2 labels in column 'noisy', but the data is single-label"):
        load(root, MULTI, multi_label=False)


def test_several_true_labels_make_it_multi_label(root):
    dataset = load(root, "path,noisy,label\na.png,cat,cat;dog\nc.png,cat,\n")
    assert dataset.train.label.tolist() == [[1, 1], [-1, -1]]
    assert dataset.train.trusted.tolist() == [True, False]
    assert "1 rows have several labels separated by ';', row 2 first" in dataset.notes[0]
    dataset = load(root, "path,noisy,label\na.png,cat,dog\nc.png,dog,\n", label_separator="|")
    assert dataset.train.label.tolist() == [1, -1]
    assert dataset.trust(0.9, 0).train.trusted.tolist() == [True, False]


@pytest.mark.parametrize("separator", [";", "\t", "|", "~", " "])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_any_separator_and_headers_in_capitals(root, separator, encoding):
    table = SINGLE.replace("path,noisy,label,split", "Path,NOISY,Label,Split").replace(",", separator)
    (root / "labels.csv").write_bytes(table.encode(encoding))
    dataset = folder(root, 4)
    assert dataset.train.noisy_label.tolist() == [1, 2, 0]
    assert dataset.test.label.tolist() == [2]


@pytest.mark.parametrize("column", ["labels", "lable", "Label_", "splits", "sPlt"])
def test_a_column_that_is_nearly_one_is_refused_and_others_are_noted(root, column):
    with pytest.raises(DataError, match=r"is not read: rename it to '(label|split)'"):
        load(root, f"path,noisy,{column}\na.png,cat,x\nc.png,dog,y\n")
    assert load(root, "path,noisy,remark\na.png,cat,x\nc.png,dog,y\n").notes == ("not used: remark",)


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["1", "1.0", "10", "2.00"], ("1", "2", "10")),
        (["1", "nan", "10", "9"], ("1", "9", "10")),
        (["1.0", "1.5", "v1.0", "1.0"], ("1.0", "1.5", "v1.0")),
        (["9007199254740993", "9007199254740992", "1.", "1"], ("1", "9007199254740992", "9007199254740993")),
        (["caf\u00e9", "cafe\u0301", "\u200bcaf\u00e9\u00a0", "Caf\u00e9"], ("Caf\u00e9", "caf\u00e9")),
    ],
)
def test_names_have_one_spelling_and_numbers_their_order(root, cells, names):
    files = ("a.png", "sub/b.png", "c.png", "d.png")
    dataset = load(root, "path,noisy\n" + "".join(f"{f},{c}\n" for f, c in zip(files, cells, strict=True)))
    assert dataset.class_names == names
    assert any("differ by case" in note for note in dataset.notes) == ("Caf\u00e9" in cells)


@pytest.mark.parametrize("listed", [("1.0", "2.0"), ("2", "1"), ("1.", "+2", "1", "2"), ("nan", "2", "1")])
def test_a_listed_class_is_any_spelling_of_its_number(root, listed):
    (root / "classes.txt").write_text("\n".join(listed))
    dataset = load(root, "path,noisy,label,split\na.png,1.0,,\nd.png,2,,\nc.png,,1,test\nsub/b.png,,2.0,test\n")
    assert dataset.class_names == listed
    said = dataset.train.noisy_label.tolist() + dataset.test.label.tolist()
    assert [float(listed[c]) for c in said] == [1, 2, 1, 2]


@pytest.mark.parametrize("none", ["nan", "NA", "None", "-1", "<NA>", "-1.0"])
@pytest.mark.parametrize("names", [("cat", "dog"), ("0", "1"), ("0.0", "1.0")])
def test_true_labels_alone_that_mean_none_are_unknown(root, none, names):
    a, b = names
    if none == "-1.0" and a == "cat":
        none = "-1"  # no number among numbers
    table = f"path,noisy,label\na.png,{a},{a}\nc.png,{b},{none}\nd.png,{b},{a}\n"
    dataset = load(root, table)
    assert dataset.train.label.tolist() == [0, -1, 0]
    assert dataset.train.trusted.tolist() == [True, False, True]
    assert dataset.num_classes == 2
    if a == "cat":  # who says so of noisy labels as well may mean a class
        dataset = load(root, table + f"sub/b.png,{none},{a}\n")
        assert dataset.num_classes == 3
        assert any("may mean that there is no label" in note for note in dataset.notes)


def test_paths_are_told_apart_and_stay_in_the_folder(root, tmp_path):
    Image.new("RGB", (9, 7)).save(tmp_path / "x.png")
    Image.new("RGB", (9, 7)).save(root / "e\u0301.png")
    (root / "link.png").symlink_to(tmp_path / "x.png")
    assert len(load(root, "path,noisy\nsub\\b.png,cat\n\u00e9.png,dog\n").train) == 2
    for path in ("../x.png", str(tmp_path / "x.png"), "link.png", "sub/../../x.png"):
        table = f"path,noisy\na.png,cat\n{path},dog\n"
        with pytest.raises(DataError, match=r"row 3 .* lies outside .* by `allow_outside`"):
            load(root, table)
        assert len(load(root, table, allow_outside=True).train) == 2
    for path in ("./a.png", "sub/../a.png", "sub\\..\\a.png"):
        with pytest.raises(DataError, match="row 3 repeats the path of row 2"):
            load(root, f"path,noisy\na.png,cat\n{path},dog\n")
    with pytest.raises(DataError, match=r"'A.PNG', which is not in .*, 'a.png' being there"):
        load(root, "path,noisy\nA.PNG,cat\n")


@pytest.mark.parametrize("gib", [0, 1])
def test_all_broken_pictures_are_named_or_left_out(root, gib):
    for name in ("a.png", "c.png"):
        whole = (root / name).read_bytes()
        (root / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"2 files in all, .* by `skip_broken`: a.png, c.png\."):
        load(root, SINGLE, in_memory_gib=gib)
    dataset = load(root, SINGLE, in_memory_gib=gib, skip_broken=True)
    assert len(dataset.train) == 2
    assert "2 pictures cannot be read and are left out" in dataset.notes
    for name in ("sub/b.png", "d.png"):
        (root / name).write_bytes(b"")
    with pytest.raises(DataError, match="4 files in all"):
        load(root, SINGLE.replace("dog,test", "dog,"), in_memory_gib=gib, skip_broken=True)


def test_classes_file_fixes_order_and_allows_classes_without_examples(root):
    (root / "classes.txt").write_text("\ufeffzebra\n dog \ncat\n\nant\n", encoding="utf-8")
    dataset = load(root, SINGLE)
    assert dataset.class_names == ("zebra", "dog", "cat", "ant")
    assert dataset.train.noisy_label.tolist() == [2, 1, 3]


def test_table_as_a_spreadsheet_writes_it(root):
    table = '\ufeffpath , noisy,comment\r\n"a.png","cat","said, it was ""fine"""\r\n\r\nc.png,dog,\r\n'
    dataset = load(root, table)
    assert dataset.train.noisy_label.tolist() == [0, 1]


def test_pictures_stay_on_disk_where_memory_is_short(root):
    size = 4 * 4 * 4 * 3 / 2**30
    assert isinstance(load(root, SINGLE, in_memory_gib=size).train.inputs, np.ndarray)
    dataset = load(root, SINGLE, in_memory_gib=size * 0.99)
    assert dataset.train.inputs == ImageFiles(tuple(str(root / n) for n in ("a.png", "sub/b.png", "d.png")), 4)
    assert isinstance(dataset.test.inputs, ImageFiles)
    assert dataset.train.label.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("table", "match"),
    [
        ("", "column 'path' is missing from row 1"),
        ("path,nosy\na.png,cat\n", "column 'noisy' is missing from row 1, which is 'path,nosy'"),
        ("path,noisy,noisy\na.png,cat,dog\n", "column 'noisy' stands twice in row 1"),
        ("path,noisy\n", "there are no rows under the header"),
        ("path,noisy\na.png,cat\ngone.png,cat\n", "row 3 names 'gone.png', which is not in"),
        ("path,noisy\na.png,cat\n\nno/a.png,cat\n", "row 4 names 'no/a.png'"),
        ("path,noisy\nsub,cat\n", "row 2 names 'sub'"),
        ("path,noisy\na.png,cat\n  ,cat\n", "row 3 has an empty path"),
        ("path,noisy\na.png,cat,dog\n", "row 2 has 3 fields but the header 2: .*separate labels by ';'"),
        ("path,noisy\na.png\n", "row 2 has 1 fields"),
        ("path,noisy\na.png,cat\nc.png,cat\na.png,cat\n", "row 4 repeats the path of row 2, 'a.png'"),
        ("path,noisy,split\na.png,cat,train\nc.png,cat,valid\n", "row 3 has split 'valid': write train or test"),
        ("path,noisy,label,split\na.png,cat,cat,test\n", "there is no training row"),
        ("path,noisy,split\na.png,cat,train\nc.png,cat,test\n", "row 3 is a test row without a true label"),
        ("path,noisy\na.png,\nc.png,;\n", "no row has a label"),
        ("path,noisy,label,split\na.png,,,train\nc.png,,cat,test\n", "no training row with a label"),
        ('path,noisy\na.png,"cat\nc.png,dog\n', "row 2 has a line break within a field"),
        ("path,noisy\na.png,ca\0t\n", "holds NUL"),
        ("path,noisy,label\na.png,x,cat\nc.png,y,dog\n", "no class in common"),
        ("path,noisy,label,split\na.png,True,,\nc.png,False,,\nd.png,,true,test\n", "no class in common"),
        ("path,noisy,label,split\na.png,01,,\nc.png,2e0,,\nd.png,,1,test\n", "no class in common"),
        ("path,noisy,label,Trusted\na.png,cat,cat,1\nc.png,dog,cat,0\n", "leave 'label' empty in rows that nobody"),
        (f"path,noisy\na.png,cat\nc.png,{'x' * 200_000}\n", "row 3 or one near it is not CSV .field larger"),
    ],
)
def test_bad_row_is_named(root, table, match):
    with pytest.raises(DataError, match=match) as caught:
        load(root, table)
    assert str(caught.value).startswith(f"{root / 'labels.csv'}: ")
    assert "\n" not in str(caught.value)


def test_label_that_is_not_in_the_classes_file(root):
    (root / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match=r"row 5 has the label 'wolf': correct it, or add it to classes.txt"):
        load(root, SINGLE.replace("ant,ant", "wolf,dog"))
    with pytest.raises(DataError, match="row 2 has the label 'cta': write 'cat'"):
        load(root, SINGLE.replace("a.png,cat", "a.png,cta"))
    (root / "classes.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(DataError, match=r"classes.txt: line 3 repeats the class 'cat'"):
        load(root, SINGLE)


def test_files_that_are_missing_or_no_text(root, tmp_path):
    with pytest.raises(DataError, match=r"labels.csv: no such file: write one with the columns path,noisy"):
        folder(tmp_path / "nowhere")
    (root / "labels.csv").write_bytes("path,noisy\na.png,café\n".encode("latin1"))
    with pytest.raises(DataError, match=r"labels.csv: not UTF-8"):
        folder(root)
    (root / "classes.txt").write_bytes("café".encode("latin1"))
    with pytest.raises(DataError, match=r"classes.txt: not UTF-8"):
        load(root, SINGLE)


def test_broken_picture_is_named(root):
    (root / "sub" / "b.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match=r"sub/b.png: not a readable picture"):
        load(root, SINGLE)
