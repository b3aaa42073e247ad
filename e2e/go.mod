module collage/e2e

go 1.25.0
