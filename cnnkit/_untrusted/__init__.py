"""Reading of files that may come from strangers, within stated limits and without TensorFlow.

Every reader of such bytes goes through this package: `regular_files` opens, `zip_archives`,
`json_documents`, `npy_arrays`, `hdf5_files`, `matlab_files` and `pickles` read one format each,
`limits` has all numbers, and `damage` turns whatever a parser raises into one clear error. The
modules raise `DataError`; `damage_as_error` gives it the class that a caller documents.
"""
